"""jupyter_kernel_test on the shell kernel that KERNEL_UNDER_TEST names: run by unittest in a process of its own."""

from __future__ import annotations

import os
import unittest

from jupyter_kernel_test import KernelTests


class Suite(KernelTests):  # type: ignore[misc]
    kernel_name = os.environ["KERNEL_UNDER_TEST"]
    language_name = "bash"
    file_extension = ".sh"
    code_hello_world = "echo 'hello, world'"
    code_stderr = "echo test >&2"
    completion_samples = [
        {"text": "cat /etc/passw", "matches": {"/etc/passwd"}},
        {"text": "expor", "matches": {"export"}},
    ]
    complete_code_samples = ["echo 1", "if true; then echo; fi", "cat <<E\n1\nE"]
    incomplete_code_samples = ["if true; then", "echo 'a", "cat <<E\n1"]
    invalid_code_samples = ["echo )", "fi"]
    code_page_something = "sort?"
    code_generate_error = "exit 3"
    code_display_data = [{"code": "echo '# title' | cellwall-display --type text/markdown -", "mime": "text/markdown"}]
    code_inspect_sample = "sort"


if __name__ == "__main__":
    unittest.main()
