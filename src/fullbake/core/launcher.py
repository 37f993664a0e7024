"""What a process that trains with others tells torchrun, which started it, when it ends with an error.

torchrun starts all processes again whatever the exit code, as often as --max-restarts says; a mistake of the command
would be repeated as often. There is no exit code that it does not restart after. So the process asks torchrun itself to
end, as a user does by Ctrl-C. torchrun's last lines show what lies in the file TORCHELASTIC_ERROR_FILE.
"""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Final

from fullbake.core import runtime

OTHERS_SECONDS: Final = 10.0
"""So long a process leaves it to the first process of its machine to print the mistake that both found."""


def leave_to_first() -> None:
    """Wait while the first process of this machine may print the same mistake: torchrun ends this process then.

    A mistake that only this process finds is printed after OTHERS_SECONDS.
    """
    if runtime.local_rank():
        time.sleep(OTHERS_SECONDS)


def note_error(message: str) -> None:
    """Write an error where torchrun looks for it. Without torchrun nothing is done."""
    file = runtime.torchrun_error_file()
    if file is not None:
        shown = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError):  # the message was printed already
            Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": shown}}))


def end_restarts() -> None:
    """Ask torchrun to end, if it started this process itself and would start it again.

    Only a first attempt ends so: what goes wrong after a restart may be left from a machine that was lost, such as its
    lock on a shared folder, and pass.
    """
    # torchrun's own children lead a session each; a script between the two would be the parent otherwise.
    if runtime.is_first_attempt() and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            os.kill(os.getppid(), signal.SIGTERM)
