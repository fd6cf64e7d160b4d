"""The process that atheris runs in: `python -m tests.fuzz.look NAME CORPUS OPTIONS…`, options as libFuzzer has them."""

import sys
import warnings

import atheris
import sqlalchemy.sql.compiler  # noqa: F401  readers import it late, and it runs code without builtins, which atheris does not bear

with atheris.instrument_imports(include=["rebalancerd"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    warnings.simplefilter("ignore")  # damaged arrays and numbers make NumPy warn
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name].read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
