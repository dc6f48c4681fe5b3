"""jupyter_kernel_test on the shell kernels that KERNELS_UNDER_TEST names: run by unittest in a process of its own."""

from __future__ import annotations

import os
import unittest

from patient_suite import PatientTests  # type: ignore[import-not-found]  # beside this program


class Shell(PatientTests):  # type: ignore[misc]
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


def load_tests(loader: unittest.TestLoader, *_: object) -> unittest.TestSuite:
    """Called by unittest: the tests once for each kernel."""
    names = os.environ["KERNELS_UNDER_TEST"].split()
    kinds = [type(f"Shell_{name}", (Shell,), {"kernel_name": name}) for name in names]
    return unittest.TestSuite(loader.loadTestsFromTestCase(kind) for kind in kinds)


if __name__ == "__main__":
    unittest.main()
