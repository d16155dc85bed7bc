"""How the documentation is built: ``make docs``. Nothing is fetched while it is, and nothing when it is read."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import lightning_ib

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "lightning-ib"
author = "The lightning-ib developers"
copyright = author  # noqa: A001
version = release = lightning_ib.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "matplotlib.sphinxext.plot_directive",
    "cards",
    "formulas",
    "public_names",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
suppress_warnings = ["config.cache"]

# -- Markdown and formulas ---------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
html_math_renderer = "svg"
# Prompts and output of doctests stay out of the clipboard.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# -- what the docstrings hold ------------------------------------------------------------------------------------------

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
python_use_unqualified_type_names = True
add_module_names = False
python_maximum_signature_line_length = 160  # of names as long as their modules make them

# Of others: their documentation lies in the net, and the build asks for nothing there.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|nn|Tensor|DataLoader|pl|pytorch_lightning|lightning|LightningModule|Trainer)(\..*)?"),
    ("py:.*", r"(torchmetrics|Metric|matplotlib|Figure|Axes|numpy|pandas|DataFrame|sklearn)(\..*)?"),
    ("py:.*", r"(abc|collections|os|pathlib|typing)(\..*)?"),  # Python's own
    # Of the package: what only the parts of a measurement are made from.
    ("py:class", r"lightning_ib\.measurement\.(watched\.WatchedLayers|head\.HeadSearch)"),
]

# -- examples that are run ---------------------------------------------------------------------------------------------

doctest_test_doctest_blocks = ""  # those of docstrings are run by pytest, in their modules
doctest_global_setup = """
import warnings

import torch
from torch import nn

warnings.simplefilter("ignore")
torch.manual_seed(0)
"""

# -- pictures that pages draw ------------------------------------------------------------------------------------------

plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_rcparams = {"font.size": 9.0, "svg.hashsalt": "lightning-ib"}
plot_apply_rcparams = True

# -- how it looks ------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"lightning-ib {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "source_repository": "https://github.com/lightning-ib/lightning-ib/",
    "source_branch": "main",
    "source_directory": "docs/",
}

_WIDE = ("truth", "trials")


def setup(app: Sphinx) -> None:
    """Give pages with wide tables the room that a list of contents would take."""

    def without_contents(app: Sphinx, env: BuildEnvironment) -> list[str]:
        for page in _WIDE:
            env.metadata[page]["hide-toc"] = ""
        return []

    app.connect("env-updated", without_contents)
