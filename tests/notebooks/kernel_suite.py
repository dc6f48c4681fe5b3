"""jupyter_kernel_test on the kernel that KERNEL_UNDER_TEST names: run by unittest in a process of its own."""

from __future__ import annotations

import os
import time
import unittest
from typing import ClassVar

from jupyter_client.manager import start_new_kernel
from patient_suite import PatientTests  # type: ignore[import-not-found]  # beside this program


def setUpModule() -> None:
    """Have a spare container ready for the kernel under test, where that is what is asked for."""
    if not os.environ.get("KERNEL_TAKES_A_SPARE"):
        return
    from cellwall.kernel.spares import Spares
    from cellwall.runtime.engine import Engine

    for _ in range(2):
        manager, client = start_new_kernel(kernel_name=Suite.kernel_name)
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    deadline = time.monotonic() + 60
    while not (found := Spares.of(Engine.default()).waiting):
        assert time.monotonic() < deadline, "no spare container"
        time.sleep(0.05)
    Suite.spares = found


class Suite(PatientTests):  # type: ignore[misc]
    spares: ClassVar[list[str]] = []
    kernel_name = os.environ["KERNEL_UNDER_TEST"]
    language_name = "python"
    file_extension = ".py"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        assert not cls.spares or cls.km.provisioner._session.container_id in cls.spares

    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise ValueError"
    code_execute_result = [{"code": "1+2+3", "result": "6"}]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"}
    ]
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


if __name__ == "__main__":
    unittest.main()
