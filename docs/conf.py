"""The site: `make docs`. A warning is an error: links, references and docstrings hold."""

from wio import __version__

project = "wio"
copyright = "the authors of wio, Apache-2.0"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "wio"
html_copy_source = False
# The viewer is one page without links: it goes along as it is.
html_extra_path = ["../viewer/viewer.html"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# A console block shows commands and what they print: no lexer takes both.
highlight_language = "none"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
suppress_warnings = ["misc.highlighting_failure"]
