"""The wheel, installed into a fresh environment outside of the checkout, compiles and runs."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent

PROGRAM = """
import tracecc as tc

@tc.compile
def f(x, w):
    return (x @ w).relu().sum()

value = f(tc.ones(4, 8), tc.full((8, 2), 0.5)).item()
print(tc.__file__)
print(value)
"""


def test_a_wheel_in_a_fresh_environment_compiles_and_runs(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # Its dependencies come from the running environment: the test needs no network.
    env = dict(os.environ, TRACECC_CACHE_DIR=str(tmp_path / "cache"))
    env["PYTHONPATH"] = str(dependencies(tmp_path))
    out = subprocess.run(
        [python, "-c", PROGRAM], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    where, value = out.stdout.split()
    assert where.startswith(str(home))
    assert float(value) == 32.0


def dependencies(folder: pathlib.Path) -> pathlib.Path:
    """A folder of links to this environment's packages, without the package under test."""
    links = folder / "dependencies"
    links.mkdir()
    for package in pathlib.Path(sysconfig.get_path("purelib")).iterdir():
        if "tracecc" not in package.name and package.suffix != ".pth":
            (links / package.name).symlink_to(package)
    return links
