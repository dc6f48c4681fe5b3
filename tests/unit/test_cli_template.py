"""Go's templates: each construct with what Go makes of it, and mistakes in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.cli.template import render
from cellwall.runtime.errors import SpecError

BOX = {
    "Name": "/lab",
    "State": {"Running": True, "ExitCode": 0, "Health": None},
    "Args": ["a", "b c"],
    "Mounts": [{"Type": "bind", "Source": "/x"}, {"Type": "tmpfs", "Source": ""}],
    "Labels": {"z": "1", "a.b/c": "2"},
    "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None},
    "Size": 1234,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "/lab"),
        ("{{ .State.Running }} {{.State.ExitCode}}", "true 0"),
        ("{{.Args}} {{.Labels}}", "[a b c] map[a.b/c:2 z:1]"),
        ("{{json .Args}}{{json .State}}", '["a","b c"]{"Running":true,"ExitCode":0,"Health":null}'),
        ("{{.Name | json}}", '"/lab"'),
        ("{{range .Mounts}}{{.Type}}={{.Source}};{{end}}", "bind=/x;tmpfs=;"),
        ("{{range $i, $m := .Mounts}}{{if $i}}, {{end}}{{$m.Type}}{{end}}", "bind, tmpfs"),
        ("{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}", "a.b/c:2 z:1 "),
        ("{{range .State.Health}}x{{else}}none{{end}}", "none"),
        ("{{range $p, $c := .Ports}}{{$p}}->{{with $c}}{{(index . 0).HostPort}}{{else}}-{{end}} {{end}}", "80/tcp->8080 81/tcp->- "),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .Labels "a.b/c"}}{{index .Labels "no"}}|', "2|"),
        ("{{index .Args 1}}", "b c"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ('{{if eq .Name "/x" "/lab"}}is{{else if .Size}}size{{end}}', "is"),
        ('{{if eq .Name "/x"}}is{{else if .Size}}size{{else}}no{{end}}', "size"),
        ("{{if and .State.Running (gt .Size 1000)}}big{{end}}", "big"),
        ("{{if not .State.Health}}no check{{end}}", "no check"),
        ("{{if or .State.Health .Size}}x{{end}}", "x"),
        ('{{with .State}}{{.Running}}{{end}}{{with .State.Health}}{{.Status}}{{else}}none{{end}}', "truenone"),
        ("{{$n := .Name}}{{with .State}}{{$n}} {{$.Size}}{{end}}", "/lab 1234"),
        ('{{printf "%s has %d bytes, %5.1f%% %q" .Name .Size 2.5 "x"}}', '/lab has 1234 bytes,   2.5% "x"'),
        ('{{join .Args "+"}} {{upper .Name}} {{lower "ABC"}} {{title "ab"}} {{len .Args}}', "a+b c /LAB abc Ab 2"),
        ('{{range split "a,b" ","}}<{{.}}>{{end}}', "<a><b>"),
        ('{{truncate "sha256:abc" 9}} {{slice .Name 1}} {{slice .Name 1 3}} {{pad "x" 1 2}}|', "sha256:ab lab la  x  |"),
        ('{{println .Name "x"}}{{print 1 "b"}}', "/lab x\n1b"),
        ("a {{- .Size -}} b {{/* nothing */}}c", "a1234b c"),
        ("{{range .Args}}{{if eq . \"b c\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ("{{range .Args}}{{if eq . \"a\"}}{{continue}}{{end}}{{.}}{{end}}", "b c"),
        ("{{.State.Health}} {{`raw\\n`}}", "<no value> raw\\n"),
        ("no action", "no action"),
    ],
)  # fmt: skip
def test_a_template_gives_what_go_gives(template: str, text: str) -> None:
    assert render(template, BOX) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{.Nope}}", "{{.Name.x}}", "{{.Name", "{{end}}", "{{range .Args}}", "{{if .Name}}{{else}}{{else}}{{end}}", "{{nope .Name}}",
        "{{}}", "{{.Name | }}", "{{$x}}", "{{range .Name}}{{end}}", "{{index .Args 9}}", '{{upper 1}}', "{{.Name .Size}}", "{{(.Name}}",
        '{{template "x"}}', "{{.Name}} {{!}}", '{{printf "%d" .Name}}', '{{printf "%d"}}', "{{__class__}}", "{{.Args.append}}",
        '{{printf "%999999999d" 1}}', "{{" + "(" * 9000 + "}}", "{{range 99999}}{{range 99999}}x{{end}}{{end}}",
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_flag(template: str) -> None:
    with pytest.raises(SpecError, match=r"^--format: ") as caught:
        render(template, BOX)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet='{}.$|()"`- abrn:=', max_size=40))
def test_nothing_that_is_typed_gets_past_the_error(template: str) -> None:
    """Whatever a person types is text, or one clear error."""
    try:
        assert isinstance(render(template, BOX), str)
    except SpecError as error:
        assert error.field == "--format"
