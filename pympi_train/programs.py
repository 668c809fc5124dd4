"""Programs of this machine: run, with what they print as text."""

import subprocess

from pympi_train.errors import LaunchError


def run_program(argv, timeout_s, advice=""):
    """Return the CompletedProcess of a program, its output as text.

    Parameters
    ----------
    argv : sequence of str
    timeout_s : float
        Maximum wait for its end.
    advice : str
        What to do if the program is not installed.

    Raises
    ------
    LaunchError
        If it is not installed, cannot be run, or does not end.
    """
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except FileNotFoundError as error:
        then = f": {advice}" if advice else ""
        raise LaunchError(f"{argv[0]} is not on PATH{then}") from error
    except OSError as error:
        raise LaunchError(f"{argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"{argv[0]} gave no answer in {timeout_s:.0f} s") from error
