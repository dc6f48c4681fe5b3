from __future__ import annotations

import pytest

from cellwall.runtime.build.dockerfile import parse
from cellwall.runtime.build.instructions import CommandLine, Copy, Env, Onbuild, Run
from cellwall.runtime.build.lines import Directives, cut
from cellwall.runtime.build.source import DockerfileError
from cellwall.runtime.errors import BuildError


def texts(source: str) -> list[str]:
    return [statement.text for statement in cut(source).statements]


def run(source: str) -> Run:
    found = parse(source).stages[0].instructions[0]
    assert isinstance(found, Run)
    return found


@pytest.mark.parametrize(
    ("source", "directives"),
    [
        ("FROM a", Directives()),
        ("# syntax=docker/dockerfile:1\nFROM a", Directives(syntax="docker/dockerfile:1")),
        ("#escape=`\nFROM a", Directives(escape="`")),
        ("# ESCAPE = `\r\nFROM a", Directives(escape="`")),
        ("\ufeff# escape=`\nFROM a", Directives(escape="`")),
        ("#syntax=x\n# check=skip=all;error=true\n#escape=\\\nFROM a", Directives("x", "\\", "skip=all;error=true")),
        # A comment, a blank line or an unknown directive ends them.
        ("# about\n# escape=`\nFROM a", Directives()),
        ("\n# escape=`\nFROM a", Directives()),
        ("# unknown=1\n# escape=`\nFROM a", Directives()),
        ("FROM a\n# escape=`", Directives()),
    ],
)
def test_directives(source: str, directives: Directives) -> None:
    assert cut(source).directives == directives


@pytest.mark.parametrize(
    ("source", "line", "column", "said"),
    [
        ("# escape=`\n# escape=`\nFROM a", 2, 1, "second time"),
        ("# escape=x\nFROM a", 1, 10, r"can't be the escape character \(allowed: \\, `\)"),
        ("", 0, 0, "no instruction"),
        ("# only\n\n", 0, 0, "no instruction"),
        ("\\\n", 0, 0, "no instruction"),
        ("FROM a\nRUN a\0b", 2, 6, "NUL"),
    ],
)
def test_files_that_cannot_be_cut(source: str, line: int, column: int, said: str) -> None:
    with pytest.raises(DockerfileError, match=said) as caught:
        cut(source)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("FROM a\nRUN b", ["FROM a", "RUN b"]),
        ("  FROM a  \r\n\tRUN b\r\n", ["FROM a  ", "RUN b"]),
        ("RUN a \\\n  b", ["RUN a   b"]),
        ("RUN a \\  \t\n  b", ["RUN a   b"]),
        ("RUN a \\\r\n  b\r\n", ["RUN a   b"]),
        ("RUN a \\\n# comment\n  # another\n  b", ["RUN a   b"]),
        ("RUN a \\\n\n  b", ["RUN a   b"]),
        ("RUN a \\", ["RUN a "]),
        ("RUN a \\\\\nFROM b", ["RUN a \\\\", "FROM b"]),
        ("RUN a b # no comment", ["RUN a b # no comment"]),
        ("# a comment \\\nRUN b", ["RUN b"]),
        ("\\\nRUN b", ["RUN b"]),
        ("# escape=`\nRUN a `\n b \\\nRUN c", ["RUN a  b \\", "RUN c"]),
    ],
)
def test_continuation_and_comments(source: str, expected: list[str]) -> None:
    assert texts(source) == expected


def test_an_empty_line_in_a_continuation_is_remarked() -> None:
    (remark,) = parse("FROM a\nRUN b \\\n\n  c\n").remarks
    assert remark.line == 3
    assert "empty line" in str(remark)


def test_lines_and_text_of_an_instruction() -> None:
    source = parse("# x\nFROM a\n\nRUN one \\\n  # why\n  two\nCOPY <<A <<B /x/\n1\nA\n2\nB\nCMD c\n").stages[0]
    found = [(item.name, item.source.first_line, item.source.last_line) for item in source.instructions]
    assert found == [("RUN", 4, 6), ("COPY", 7, 11), ("CMD", 12, 12)]
    assert source.instructions[0].source.text == "RUN one \\\n  # why\n  two"
    assert source.instructions[1].source.text == "COPY <<A <<B /x/\n1\nA\n2\nB"


@pytest.mark.parametrize(
    ("source", "script", "is_file"),
    [
        ("RUN <<EOF\necho a\necho b\nEOF", "echo a\necho b\n", False),
        ("RUN <<-EOF\n\techo a\n\t\techo b\n\tEOF", "echo a\necho b\n", False),
        ("RUN <<EOF\n#!/usr/bin/env python3\nprint()\nEOF", "#!/usr/bin/env python3\nprint()\n", True),
        ("RUN <<EOF python3\nprint()\nEOF", "<<EOF python3\nprint()\nEOF\n", False),
        ("RUN cat <<A <<'B' > /x\n1\nA\n2\nB", "cat <<A <<'B' > /x\n1\nA\n2\nB\n", False),
        ("RUN 3<<EOF cat /dev/fd/3\n1\nEOF", "3<<EOF cat /dev/fd/3\n1\nEOF\n", False),
        ("RUN cat <<-E\n\t1\n\tE", "cat <<-E\n\t1\nE\n", False),
        ("RUN <<EOF\n\nEOF", "\n", False),
        ("RUN <<EOF\nEOF", "", False),
        ("RUN echo a", "echo a", False),
        # Not heredocs: a here-string, an arithmetic shift, a quoted <<.
        ("RUN cat <<<x", "cat <<<x", False),
        ("RUN echo $((1<<2))", "echo $((1<<2))", False),
        ('RUN echo "<<EOF"', 'echo "<<EOF"', False),
        ("RUN echo \\<<EOF", "echo \\<<EOF", False),
    ],
)
def test_heredocs_of_run(source: str, script: str, is_file: bool) -> None:
    assert run(f"FROM a\n{source}\n").script() == (script, is_file)


def test_an_exec_form_has_no_script_and_no_heredoc() -> None:
    found = run('FROM a\nRUN ["cat", "<<EOF"]\n')
    assert found.command == CommandLine(("cat", "<<EOF"), shell=False)
    assert found.heredocs == ()
    with pytest.raises(ValueError, match="exec form"):
        found.script()


@pytest.mark.parametrize(
    ("mark", "body", "expands"),
    [
        ("<<EOF", "a\n\tb\n", True),
        ("<<'EOF'", "a\n\tb\n", False),
        ('<<"EOF"', "a\n\tb\n", False),
        ("<<E'O'F", "a\n\tb\n", False),
        ("<<-EOF", "a\nb\n", True),
        ("<<-'EOF'", "a\nb\n", False),
    ],
)
def test_heredocs_of_copy(mark: str, body: str, expands: bool) -> None:
    (copy,) = parse(f"FROM x\nCOPY {mark} real /there/\na\n\tb\nEOF\n").stages[0].instructions
    assert isinstance(copy, Copy)
    assert copy.sources == ("real",)
    (heredoc,) = copy.files
    assert (heredoc.name, heredoc.body(), heredoc.expands) == ("EOF", body, expands)


def test_comments_and_continuations_mean_nothing_in_a_heredoc() -> None:
    (copy,) = parse("FROM x\nCOPY <<E /there\n# kept\na \\\n\n b\r\nE\n").stages[0].instructions
    assert isinstance(copy, Copy)
    assert copy.files[0].content == "# kept\na \\\n\n b\r\n"


def test_a_heredoc_below_onbuild_goes_to_the_config_with_it() -> None:
    (found,) = parse("FROM x\nONBUILD RUN <<EOF\nls\nEOF\n").stages[0].instructions
    assert isinstance(found, Onbuild)
    assert found.text == "RUN <<EOF\nls\nEOF"
    assert isinstance(found.trigger, Run)
    assert found.trigger.script() == ("ls\n", False)


def test_other_instructions_have_no_heredocs() -> None:
    (env,) = parse("FROM x\nENV A=<<EOF\n").stages[0].instructions
    assert isinstance(env, Env)
    assert env.pairs == (("A", "<<EOF"),)


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("FROM a\nRUN <<EOF\necho\n", 2, 5),
        ("FROM a\nCOPY <<A \\\n  <<B /x/\n1\nA\nb\n", 3, 3),
        ("FROM a\nRUN cat <<EOF\n EOF\n", 2, 9),
        ("FROM a\nRUN <<-EOF\n EOF\n", 2, 5),
    ],
)
def test_an_open_heredoc_is_pointed_at(source: str, line: int, column: int) -> None:
    with pytest.raises(BuildError, match="isn't closed") as caught:
        parse(source)
    assert isinstance(caught.value, DockerfileError)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert caught.value.text == source.split("\n")[line - 1]


def test_bytes_that_are_not_utf8_are_kept() -> None:
    found = parse(b"FROM a\nRUN echo \xff\xc3\xa9").stages[0].instructions[0]
    assert isinstance(found, Run)
    assert found.command.argv[0].encode("utf-8", "surrogateescape") == b"echo \xff\xc3\xa9"
