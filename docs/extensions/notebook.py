"""Runs the notebook while the site is built, and makes a page of it."""

import re
from pathlib import Path

import nbformat
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

_NAME = "quickstart"


def on_files(files, config):
    """Adds the page, and the pictures that the notebook draws; MkDocs calls this."""
    notebook = nbformat.read(Path(config.docs_dir, f"{_NAME}.ipynb"), as_version=4)
    before = _printed(notebook)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", coalesce_streams=True
    ).execute()
    for cell in notebook.cells:
        # TensorFlow's log of the machine that it finds.
        outputs = cell.get("outputs", [])
        cell.outputs = [o for o in outputs if o.get("name") != "stderr"]
    if _printed(notebook) != before:
        raise PluginError(
            f"{_NAME}.ipynb prints something else than what is stored in it: "
            f"{_printed(notebook)}, stored {before}. Run it and save it."
        )
    page, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"output_files_dir": f"{_NAME}_files"}
    )
    files.append(File.generated(config, f"{_NAME}.md", content=page))
    for name, picture in resources["outputs"].items():
        files.append(File.generated(config, name, content=picture))
    return files


def _printed(notebook):
    """Returns what the cells print, without figures: they differ by processor."""
    return [
        re.sub(r"[\d.]+", "#", output.text)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]
