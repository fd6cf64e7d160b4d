"""One thread for OpenMP: small predictions wait longer for each other's threads than they compute, where cores are busy."""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _pools() -> Any:
    """The thread pools of the libraries that are loaded; asked for once, after scikit-learn's are."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Within it this thread's calls use no other one."""
    limited: AbstractContextManager[Any] = _pools().limit(limits=1, user_api="openmp")
    return limited
