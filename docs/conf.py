"""The site: `make docs`. Its sources are the documents where they lie; a warning, and so a broken link, is an error."""

from wio import __version__

project = "wio"
copyright = "the authors of wio, Apache-2.0"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", "spec/*.md"]
exclude_patterns = [".*", "build", "tests", "bench", "demo", "tour", "wio", "adapters", "registry"]
html_theme = "furo"
html_title = "wio"
html_copy_source = False
# The viewer is one page without links; `index.html` leads to the first page from the top.
html_extra_path = ["../viewer/viewer.html", "index.html"]
myst_heading_anchors = 4
# A console block shows commands and what they print: no lexer takes both.
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
