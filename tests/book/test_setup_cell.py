"""The setup cell installs the package from the repository, as in Colab, and from nowhere else."""

import re
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest
import sync

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A git repository of the files of this checkout that the package is made from."""
    copy = tmp_path_factory.mktemp("clone") / "minillm"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    shipped = ["minillm", "exercises", "pyproject.toml", "README.md", "LICENSE"]
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *shipped],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "copy"]):
        subprocess.run([*git, *words], cwd=copy, check=True, capture_output=True)
    return copy


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A virtual environment that sees torch and the like, but not this checkout's package."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(home, with_pip=True)
    site = next(home.glob("lib/python*/site-packages"), home / "Lib" / "site-packages")
    outer = home.parent / "outer"
    outer.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "minillm" not in entry.name and entry.suffix != ".pth":
            (outer / entry.name).symlink_to(entry)
    (site / "outer.pth").write_text(f"{outer}\n")
    return home / "bin" / "python"


def run(python, code, cwd):
    script = cwd / "cell.py"
    script.write_text(code)
    done = subprocess.run(
        [python, "-I", "-c", f"exec(open({str(script)!r}).read())"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_setup_cell_names_the_repository_and_no_index():
    cell = sync.setup_cell(ROOT)
    assert re.search(r"%pip install -q \"minillm\[\w+\] @ git\+https://\S+\"", cell)
    assert len(cell.splitlines()) == 3


def test_setup_cell_installs_from_a_clone_once(clone, fresh, tmp_path):
    cell = sync.setup_cell(ROOT)
    url = re.search(r"git\+(https://[^\"]+)", cell).group(1)
    code = f"""
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        calls = []
        cell = {cell.replace(url, f"file://localhost{clone}")!r}
        cell = cell.replace("-q", "-q --no-deps --disable-pip-version-check")
        for _ in range(2):
            shell.run_cell("import importlib; importlib.invalidate_caches()").raise_error()
            shell.run_cell(cell).raise_error()
        import minillm, minillm.viz, minillm.exercises
        print(minillm.__file__)
        import importlib.resources
        print(sorted(p.name for p in (importlib.resources.files("minillm") / "checks").iterdir()))
    """
    said = run(fresh, textwrap.dedent(code), tmp_path)
    place, checks = said.strip().splitlines()[-2:]
    assert Path(place).is_relative_to(fresh.parents[1]), said
    for folder in (ROOT / "exercises" / "tests").iterdir():
        assert folder.name in checks


def test_setup_cell_does_nothing_where_the_package_is(tmp_path):
    code = f"""
        import subprocess, sys
        sys.path.insert(0, {str(ROOT)!r})
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        def refuse(*_, **__): raise AssertionError("installed again")
        subprocess.Popen = refuse
        shell.system = refuse
        shell.run_cell({sync.setup_cell(ROOT)!r}).raise_error()
        print("quiet")
    """
    assert run(sys.executable, textwrap.dedent(code), tmp_path).strip() == "quiet"
