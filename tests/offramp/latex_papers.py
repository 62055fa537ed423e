"""A paper with every figure and table of some folders, as LaTeX makes it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

needs_latex = pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="no LaTeX here: pdflatex is missing"
)


def paper_of(folder: Path, *parts: Path) -> list[Path]:
    """Compile two columns with every ``.tex`` file of the parts in ``folder``; return the files.

    A letter that LaTeX has not would be a question mark in them.
    """
    files = [file for part in parts for file in sorted(part.glob("*.tex"))]
    marked = [file.name for file in files if "?" in file.read_text(encoding="utf-8")]
    assert not marked
    lines = [
        r"\documentclass[twocolumn]{article}",
        r"\usepackage{graphicx,booktabs,siunitx}",
        r"\graphicspath{" + "".join(f"{{{part}/}}" for part in parts) + "}",
        r"\begin{document}",
        *(rf"\input{{{file}}}\clearpage" for file in files),
        r"\end{document}",
    ]
    (folder / "paper.tex").write_text("\n".join(lines))
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder,
        capture_output=True,
        env={**os.environ, "max_print_line": "1000"},
    )
    log = ran.stdout.decode("latin-1")
    assert ran.returncode == 0, log[-3000:]
    assert "Overfull" not in log
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF-")
    return files
