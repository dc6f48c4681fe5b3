"""jupyter_kernel_test for a machine that is busy: imported by the programs kernel_suite.py and shell_suite.py.

The suite itself gives a message a tenth of a second, and takes one that comes after that for the next request's.
"""

from __future__ import annotations

from typing import Any

import jupyter_kernel_test
from jupyter_kernel_test import KernelTests
from jupyter_kernel_test.msgspec_v5 import validate_message

PATIENCE_S = 60
jupyter_kernel_test.TIMEOUT = PATIENCE_S


class PatientTests(KernelTests):  # type: ignore[misc]
    def execute_helper(
        self, code: str, timeout: int = PATIENCE_S, **options: bool
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Run a cell; returns its reply, and what it published between busy and idle but the cell itself."""
        msg_id = self.kc.execute(code=code, **options)
        reply = self.get_non_kernel_info_reply(timeout=timeout)
        validate_message(reply, "execute_reply", msg_id)
        states: list[str] = []
        published: list[dict[str, Any]] = []
        while states[-1:] != ["idle"]:
            message = self.kc.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            kind, content = message["msg_type"], message["content"]
            validate_message(message, kind, msg_id)
            if kind == "status":
                states.append(content["execution_state"])
            elif kind == "execute_input":
                self.assertEqual(content["code"], code)
            else:
                self.assertEqual(states, ["busy"])
                published.append(message)
        self.assertEqual(states, ["busy", "idle"])
        return reply, published
