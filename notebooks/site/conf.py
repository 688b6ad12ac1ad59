"""What Sphinx makes of the gathered pages; see build.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from reference import name_examples, process_docstring, process_signature, public

project = "lalib"
author = copyright = "the lalib authors"
html_title = "lalib"
smartquotes = False  # a text in quotes is to be typed as it stands
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_codeautolink", "sphinx_copybutton"]
exclude_patterns = ["data/results", "notebooks/pictures"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["ref.citation"]  # works that only a module cites

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
codeautolink_autodoc_inject = True
codeautolink_concat_default = True
codeautolink_inventory_map = {
    f"{value.__module__}.{value.__qualname__}": name
    for name, value in public().items()
    if hasattr(value, "__qualname__")
}

html_theme = "furo"
html_css_files = ["site.css"]
html_js_files = [("figures.js", {"defer": "defer"})]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches every page that is found, which a browser refuses for files
mathjax_path = "tex-svg.js"  # MathJax 3 in one file
mathjax3_config = {"options": {"enableMenu": False}}


def setup(app):
    app.connect("autodoc-process-docstring", process_docstring, priority=400)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("doctree-resolved", name_examples, priority=900)
