"""A person as the oracle: labels are saved as they are given; then they are learnt from, compared, merged, exchanged.

An image has one class, or none yet. LabelStore is the file of answers; LabellingLoop learns from them and says what to
label next. All raise TypeError or ValueError for wrong arguments, LalibError if the file of answers is in trouble.
"""

from lalib.labelling.agreement import Agreement, agreement, merge
from lalib.labelling.answers import Answer
from lalib.labelling.formats import (
    label_studio_config,
    read_csv,
    read_label_studio,
    write_csv,
    write_label_studio,
    write_selection,
)
from lalib.labelling.result import apply_result
from lalib.labelling.rounds import LabellingLoop, Snapshot
from lalib.labelling.store import Imported, LabelStore, Progress

__all__ = ["Agreement", "Answer", "Imported", "LabelStore", "LabellingLoop", "Progress", "Snapshot", "agreement"]
__all__ += ["apply_result", "label_studio_config", "merge", "read_csv", "read_label_studio", "write_csv"]
__all__ += ["write_label_studio", "write_selection"]
