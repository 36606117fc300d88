"""Write the parity page: for each model and check the largest error that the tests measured."""

import json
from collections import defaultdict

from course import Course

HEAD = """# Parity

<!-- Made by `make sync` from `book/data/parity.json`; edit `book/tools/parity.py` instead. -->
"The same as the reference" is a number here. What the library computes is compared with
implementations that nobody here wrote, in double precision. The neural models and layers get noise
on every weight first (at their initial values many weights make no difference, and a mistake in
them would not show), and the gradient of every weight is compared too. Each entry is the largest
absolute difference that was measured, over all entries of all tensors compared. Numbers of double
precision near 1 lie $2.2 \\cdot 10^{-16}$ apart; a mistake in a formula shows many orders of
magnitude above that, and the tests keep named wrong versions, each of which has to fail.
"""
FOOT = """
`{command}` measures again; each run of the tests repeats the comparisons and holds them to the
bounds in the tests.
"""  # the command is stored beside the numbers


def page(course: Course) -> str | None:
    """Return the parity page, or None where nothing was recorded."""
    path = course.root / "book" / "data" / "parity.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text("utf8"))
    families = defaultdict(list)
    for row in data["rows"]:
        families[row["test"]].append(row)
    lines = [HEAD, *summary(data["rows"])]
    for test, rows in sorted(families.items()):
        lines += family(course, test, rows)
    return "\n".join(lines) + "\n" + FOOT.format(command=data["command"])


def summary(rows: list[dict]) -> list[str]:
    """Return the table of models: oracle, its version, number of checks, the largest error."""
    models = defaultdict(list)
    for row in rows:
        models[row["test"], row["model"]].append(row)
    lines = ["| model | compared with | version | checks | largest error |"]
    lines += ["| :-- | :-- | :-- | --: | --: |"]
    for (_, model), own in sorted(models.items()):
        oracles = ", ".join(dict.fromkeys(named(row["oracle"]) for row in own))
        versions = ", ".join(dict.fromkeys(row["version"] for row in own if row["version"]))
        worst = max(row["max_error"] for row in own)
        lines += [f"| {model} | {oracles} | {versions} | {len(own)} | {number(worst)} |"]
    return [*lines, ""]


def family(course: Course, test: str, rows: list[dict]) -> list[str]:
    """Return one test file's table: models against checks, the shorter list as columns."""
    errors = defaultdict(float)
    for row in rows:
        key = (row["model"], row["check"])
        errors[key] = max(errors[key], row["max_error"])
    models, checks = (sorted({key[i] for key in errors}) for i in (0, 1))
    turned = len(models) > len(checks)
    down, across = (models, checks) if turned else (checks, models)
    link = f"{course.url}/blob/{course.branch}/tests/parity/{test}"
    where = sorted({f"torch {row['torch']}, {row['machine']}" for row in rows})
    lines = [f"## {title(test)}", ""]
    lines += [f"From [tests/parity/{test}]({link}), measured with {'; '.join(where)}.", ""]
    lines += [f"| {'model' if turned else 'check'} | {' | '.join(across)} |"]
    lines += [f"| :-- |{' --: |' * len(across)}"]
    for one in down:
        keys = ((one, other) if turned else (other, one) for other in across)
        cells = (number(errors[key]) if key in errors else "" for key in keys)
        lines += [f"| {one} | {' | '.join(cells)} |"]
    return [*lines, ""]


def named(oracle: str) -> str:
    """Return a class of a library as code, words such as brute force as words."""
    return f"`{oracle}`" if oracle.replace(".", "").isidentifier() else oracle


def title(test: str) -> str:
    """Return a test file's heading: `test_gpt_neo.py` is about gpt_neo."""
    return f"`{test.removeprefix('test_').removesuffix('.py')}`"


def number(error: float) -> str:
    """Return an error as a formula: 0, or two digits and a power of ten."""
    if error == 0:
        return "0"
    digits, power = f"{error:.1e}".split("e")
    return f"${digits} \\cdot 10^{{{int(power)}}}$"
