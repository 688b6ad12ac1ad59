"""The task model as scikit-activeml's strategies see it. It needs the package: import it only to run one of them."""

import numpy as np
from skactiveml.base import SkactivemlClassifier

from lalib.data.checks import LalibError
from lalib.strategies.peers import cannot
from lalib.strategies.view import PoolView


class TaskClassifier(SkactivemlClassifier):
    """A fitted classifier that answers with what the task model says of the image a row belongs to.

    rows: which image a row of the codes is, by its bytes. probs (N, C); or (T, N, C) for a committee, whose members are
    its estimators_ and whose probabilities are their mean. A keyword that is true, whatever its name (their
    clf_embedding_flag_name or predict_dict), asks for the task model's features (n, F) beside the probabilities.
    It cannot be trained, nor asked about other inputs. owner: the strategy's name, for errors.
    """

    def __init__(self, rows: dict[bytes, int], probs: np.ndarray, view: PoolView, owner: str):
        super().__init__(classes=list(range(probs.shape[-1])))
        self.rows, self.view, self.owner, self.classes_ = rows, view, owner, np.arange(probs.shape[-1])
        self.probs = probs if probs.ndim == 2 else probs.mean(0)
        if probs.ndim == 3:
            self.estimators_ = [TaskClassifier(rows, member, view, owner) for member in probs]

    def fit(self, X, y, sample_weight=None):
        raise LalibError(cannot(self.owner, "trains its classifier"))

    def predict_freq(self, X):
        raise LalibError(cannot(self.owner, "asks for class frequencies"))

    def predict_proba(self, X, **flags):
        try:
            index = [self.rows[row.tobytes()] for row in np.ascontiguousarray(X, dtype=np.float64)]
        except KeyError:
            raise LalibError(cannot(self.owner, "asks about inputs that are not codes of the pool")) from None
        probs = self.probs[index]
        probs = probs / probs.sum(axis=1, keepdims=True)  # some want a sum of 1 in float64; softmax has it in float32
        return (probs, self.view.features.cpu().double().numpy()[index]) if any(flags.values()) else probs

    def predict(self, X, **flags):
        """The most probable class of every row, the lowest of equals; with a flag their features, too."""
        probs, *features = out if isinstance(out := self.predict_proba(X, **flags), tuple) else (out,)
        guess = self.classes_[probs.argmax(1)]
        return (guess, *features) if features else guess
