# Needs make and Python 3.11 or newer. An active conda or virtual environment is used (conda's base is left alone);
# otherwise .venv is made. `make` on another interpreter: make demo PYTHON=python3.13
PYTHON ?= python3
WORKERS ?= 2

ACTIVE := $(or $(VIRTUAL_ENV),$(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX)))
VENV := $(or $(ACTIVE),.venv)
PY := $(VENV)/bin/python
STAMP := $(VENV)/.lalib-installed
APP := IMAGES CLASSES LABELS LABELLER SIZE BAD_FILES CODES SECONDS RENAME PORT
STRIP := -m nbstripout --keep-id --extra-keys "metadata.papermill metadata.widgets cell.metadata.papermill"
APT := apt-get install -y --no-install-recommends

.DEFAULT_GOAL := help
.PHONY: help demo test lab app notebooks site bench results strip install venv chromium

help:
	@echo 'make demo       set up, run the guided tour, say where its pictures and table are'
	@echo 'make test       set up, then ruff, the tests and the notebooks'
	@echo 'make lab        set up, open JupyterLab'
	@echo 'make app        set up, serve the page, from images to a classifier, for this machine alone; of your own images:'
	@echo '                make app IMAGES=photos CLASSES=cat,dog LABELS=labels.sqlite (LABELLER=me SIZE=128 BAD_FILES=skip CODES=vae SECONDS=60 RENAME=old:new PORT=8866)'
	@echo 'make notebooks  run every notebook at small size and replay it'
	@echo 'make site       the course, the README and a reference as a web site in site/; runs first what is not in runs/notebooks'
	@echo 'make bench      the measurements of tests/benchmarks'
	@echo 'make results   with which code data/results were made, and what would have to be run again'
	@echo 'make strip      remove the outputs of the notebooks before a commit'

# The figures go into the page with plotly's JavaScript, so that a browser shows them without a network; what would be
# fetched stays out: RequireJS, MathJax, and the state of widgets, for which there is a program to fetch.
OFFLINE := --log-level=ERROR --ClearMetadataPreprocessor.enabled=True --HTMLExporter.require_js_url= --HTMLExporter.mathjax_url=
demo: install
	@mkdir -p runs
	@ln -sfn ../notebooks/pictures runs/pictures
	PLOTLY_RENDERER=plotly_mimetype+notebook $(PY) -m papermill --cwd runs notebooks/00_start_here.ipynb runs/00_start_here.ipynb
	@$(PY) -m nbconvert $(OFFLINE) --to html runs/00_start_here.ipynb
	@sed -i 's#<script[^>]*src="https://[^>]*></script>##g' runs/00_start_here.html
	@echo
	@echo 'The tour with its pictures and its table, for a browser:  $(CURDIR)/runs/00_start_here.html'
	@echo 'Pictures as pages of their own, and table.csv, in:        $(CURDIR)/runs/start_here'
	@echo 'The tour as a notebook, for make lab; label there:        $(CURDIR)/runs/00_start_here.ipynb'

# A browser that draws without a graphics card wants the machine for itself. It reads the site, too, which is built from
# the notebooks that were just run.
test: install chromium
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pytest -n $(WORKERS) --dist loadscope -m 'not notebook and not browser'
	$(MAKE) --no-print-directory notebooks
	$(PY) -m pytest -m browser --durations=0

notebooks: install
	$(PY) -m pytest -n $(WORKERS) -m notebook --durations=0

site: install
	$(PY) notebooks/site/build.py

bench: install
	$(PY) -m pytest -s tests/benchmarks

results: install
	@$(PY) -c 'from lalib.experiments.records import listing; print(*listing("data/results"), sep="\n")'

# Jupyter refuses root unless told; in a container there is nobody else.
lab: install
	$(PY) -m jupyterlab --ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
	    $(if $(filter 0,$(shell id -u)),--allow-root)

# Says the address of the page, with the token without which nothing answers.
app: install
	$(PY) -m lalib.app $(foreach name,$(APP),$(if $($(name)),--$(shell echo $(name) | tr A-Z_ a-z-)='$($(name))'))

strip: install
	$(PY) $(STRIP) notebooks/*.ipynb lalib/app/*.ipynb

install: $(STAMP)

# What was tested is what runs: the pip section of environment.yml, lalib itself among its lines.
# .unfinished stays behind an interrupted set-up, and .venv is then made anew.
$(STAMP): environment.yml pyproject.toml | $(if $(ACTIVE),,venv)
	@touch $(VENV)/.unfinished
	@awk 'pip && /^ *- / {sub(/^ *- /, ""); print} /- pip:/ {pip = 1}' environment.yml > $(VENV)/lalib-requirements.txt
	$(PY) -m pip install -r $(VENV)/lalib-requirements.txt
	@mv $(VENV)/.unfinished $@

venv:
	@if [ -e .venv/.unfinished ]; then echo 'The last set-up of .venv was interrupted: starting again.'; \
	    find .venv -mindepth 1 -maxdepth 1 ! -name .unfinished -exec rm -rf {} +; fi
	@[ -x .venv/bin/python ] || { \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	        { echo 'lalib needs Python 3.11 or newer as $(PYTHON): make demo PYTHON=/path/to/python'; exit 1; }; \
	    $(PYTHON) -c 'import ensurepip' 2> /dev/null || { [ "$$(id -u)" = 0 ] && apt-get update && $(APT) python3-venv; } || \
	        { echo 'Python cannot make virtual environments here. On Debian: sudo apt-get install python3-venv'; exit 1; }; \
	    mkdir -p .venv && touch .venv/.unfinished && $(PYTHON) -m venv .venv; }

chromium:
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get update && $(APT) chromium fonts-dejavu-core; } || \
	    echo 'No chromium, so the tests that need it are skipped. On Debian: sudo apt-get install chromium fonts-dejavu-core'
