"""The suite on each Python, event loop and set of dependencies that is promised, from the sdist; and the wheel.

``.ci/run`` calls this; by hand ``nox -f .ci/noxfile.py``, with ``--list`` and ``--session NAME``.  An interpreter that
is missing is reported as skipped and is no failure.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parents[1]
EXTRAS = nox.project.load_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]
WORKERS = os.environ.get("WORKERS", "6")
"""Processes of pytest; many tests wait, so that more than there are cores pay."""

nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

# A shim of pyenv starts only the versions that are selected; the folders behind it hold all of them.
_pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PATH"] = os.pathsep.join([*map(str, sorted(_pyenv.glob("3.*/bin"), reverse=True)), os.environ["PATH"]])

INSTALLED = """
from importlib.metadata import version
from pathlib import Path
import tim_async
from tim_async import TIMClient
folder = Path(tim_async.__file__).parent
assert folder.parent.name == "site-packages", folder
for name in (
    *("py.typed", "_limiter/quota.lua", "migrate/_lua/rows.lua", "_style.css", "migrate/_report/style.css", "FLEET.md"),
    *(f"cli/_page/{file}" for file in ("page.html", "page.css", "page.js", "icon.svg")),
    "telemetry/grafana.json",
):
    assert (folder / name).is_file(), name
print(version("tim-async"))
"""


_dist = tempfile.TemporaryDirectory(prefix="tim-async-dist-")


def built(session: nox.Session, ending: str) -> Path:
    """The sdist or the wheel, which is built from the sdist; the first session that asks builds both."""
    folder = Path(_dist.name)
    if not any(folder.iterdir()):
        session.run("uv", "build", "--quiet", "--out-dir", str(folder), str(ROOT), external=True)
    (path,) = folder.glob(f"*{ending}")
    return path


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel holds all that it needs, with and without its extras."""
    path = built(session, ".whl")
    session.chdir(session.create_tmp())
    session.install(str(path))
    session.run("python", "-W", "error", "-c", INSTALLED)
    session.install(f"{path}[cli,otel,prometheus,redis]")
    session.run("tim-async", "--version")
    session.run("python", "-W", "error", "-c", "import tim_async.quota, tim_async.migrate.streams")
    session.run("python", "-W", "error", "-c", "from tim_async.telemetry import OpenTelemetry, Prometheus")


@nox.session(default=False)  # by hand: it downloads Node.js and pyright from npm
def pyright(session: nox.Session) -> None:
    """A user's programs pass pyright in strict mode, which knows the types of at least 99 % of the public names."""
    session.chdir(ROOT)
    session.install("-e", ".[dev]", "pyright[nodejs]>=1.1.414")
    session.run("pyright", "--warnings", "tests/typing_sample.py", "tests/typing_mistakes.py")
    # It exits with 1 unless every type is known; those of some examples depend on packages without types.
    verify = ("pyright", "--verifytypes", "tim_async", "--ignoreexternal", "--outputjson")
    found = json.loads(session.run(*verify, silent=True, success_codes=[0, 1]) or "")["typeCompleteness"]
    unknown = [symbol["name"] for symbol in found["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    session.log("%.1f %% of public types known; not those of %s", 100 * found["completenessScore"], ", ".join(unknown))
    if found["completenessScore"] < 0.99:
        session.error("less than 99 % of the public types are known")


@nox.session
@nox.parametrize(
    ("python", "resolution", "loop"),
    [
        nox.param("3.11", "lowest-direct", "debug", id="3.11, lowest dependencies, debug mode"),
        nox.param("3.12", "highest", "eager", id="3.12, eager tasks"),
        nox.param("3.13", "highest", "uvloop", id="3.13, uvloop"),
        # Not promised yet; tried where they are found.
        nox.param("3.14", "highest", "asyncio", id="3.14"),
        nox.param("3.15", "highest", "asyncio", id="3.15"),
    ],
)
def suite(session: nox.Session, resolution: str, loop: str) -> None:
    """All tests, in an unpacked sdist; ``.ci/run`` has passed them in the checkout, on asyncio."""
    with tempfile.TemporaryDirectory(prefix="tim-async-") as folder:
        with tarfile.open(built(session, ".tar.gz")) as sdist:
            sdist.extractall(folder, filter="data")
        (sources,) = Path(folder).glob("tim_async-*")
        session.chdir(sources)
        options = ["--resolution", resolution]
        if resolution == "lowest-direct":
            # taskiq-redis, which one example needs, asks for a newer redis than the library does.
            own = Path(folder) / "own.txt"
            own.write_text("\n".join(line.replace(">=", "==") for line in EXTRAS["redis"]), encoding="utf-8")
            options += ["--override", str(own)]
        session.install(*options, "-e", ".[dev]")
        workers = ("-n", WORKERS, "--dist", "worksteal")
        session.run("python", "-m", "pytest", *workers, f"--loop={loop}", *session.posargs)


@nox.session(default=False)  # by hand: it needs a browser
def browser(session: nox.Session) -> None:
    """The page of ``--ui`` in the ``chromium`` on the PATH, without which it fails: ``… -s browser``.

    With ``SHOTS=FOLDER`` in the environment, pictures of the page are kept there.
    """
    if shutil.which("chromium") is None:
        session.error("there is no chromium on the PATH; install it, e.g. by apt-get install chromium")
    session.chdir(ROOT)
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "tests/ui/in_browser.py", *session.posargs)


@nox.session(python="3.12", default=False)
def coverage(session: nox.Session) -> None:
    """Branch coverage of the core, which pyproject.toml names: ``nox -f .ci/noxfile.py -s coverage``."""
    session.chdir(ROOT)
    session.install("-e", ".[dev]")
    workers = ("-n", WORKERS, "--dist", "worksteal")
    elsewhere = [f"--ignore=tests/{name}" for name in ("examples", "migrate", "observers")]
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *workers, "-m", "not processes", *elsewhere, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python="3.12", default=False)
def mutants(session: nox.Session) -> None:
    """Change one expression at a time, and list the changes that no test notices: ``… -s mutants``.

    ``… -s mutants -- 'tim_async._limiter.queue*'`` tries those of a module.  A second run tries only what has changed
    since; ``mutmut show NAME`` shows a mutant.
    """
    session.chdir(ROOT)
    session.install("-e", ".[dev]", "mutmut>=3.8")
    session.run("mutmut", "run", *session.posargs, success_codes=[0, 1])
    session.run("mutmut", "results")
    session.run("mutmut", "export-cicd-stats")
    found = json.loads(Path("mutants/mutmut-cicd-stats.json").read_text(encoding="utf-8"))
    tried = sum(found[end] for end in ("killed", "timeout", "survived", "no_tests", "suspicious", "segfault"))
    killed = (found["killed"] + found["timeout"]) / max(1, tried)
    session.log(f"{killed:.1%} of {tried} mutants are killed")
    if killed < 0.85:
        session.error("fewer than 85 % of the mutants are killed")
