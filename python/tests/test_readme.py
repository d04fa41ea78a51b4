"""The examples of the package's page."""

import re

from conftest import ROOT


def test_the_examples_run_and_print_what_the_page_says(tmp_path, monkeypatch, capsys):
    text = (ROOT / "python" / "README.md").read_text()

    def blocks(language):
        return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)

    programs = blocks("python")
    assert len(programs) == 3
    monkeypatch.chdir(tmp_path)
    names = {}
    for program in programs:
        exec(program, names)
    assert [capsys.readouterr().out] == blocks("text")
    assert len(names["history"]) <= 4 and (tmp_path / "runs" / "mine" / "last.safetensors").exists()
