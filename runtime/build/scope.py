"""The variables that an instruction sees: build arguments by where they were declared, and the stage's environment above them.

Source: Dockerfile reference, "ARG" (scope, predefined ARGs, platform ARGs in the global scope), "Environment replacement".
"""

from __future__ import annotations

from collections.abc import Mapping

from ..images.platforms import Platform
from .dockerfile import Dockerfile
from .instructions import Arg, Onbuild
from .substitution import SubstitutionError, substitute

# A RUN sees these without an ARG, and a change of one makes no layer anew: they say how to reach the network, not what to build.
PREDEFINED = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


def platform_args(build: Platform, target: Platform, target_stage: str = "") -> dict[str, str]:
    """The platform ARGs: ``BUILD…`` is the machine that builds, ``TARGET…`` what is built for. FROM lines see them by themselves."""
    found: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found | {"TARGETSTAGE": target_stage or "default"}


class Scope:
    """Variables at one point of a stage. ENV always hides an ARG of its name.

    ``declare`` and ``set_env`` are what ARG and ENV do to it; ``child`` begins a stage that is built on this one.
    """

    def __init__(
        self,
        build_args: Mapping[str, str],
        global_args: Mapping[str, str],
        env: Mapping[str, str],
        *,
        escape: str = "\\",
    ) -> None:
        self._build_args = build_args
        self._global_args = global_args
        self.escape = escape
        self.args: dict[str, str | None] = {}
        self.env: dict[str, str] = dict(env)

    def lookup(self, name: str) -> str | None:
        """The value that ``$name`` has here, None where it isn't set."""
        value = self.env.get(name)
        return self.args.get(name) if value is None else value

    def declare(self, name: str, default: str | None) -> None:
        """ARG: what the caller gave, else the default, else the value from before the first FROM."""
        self.args[name] = self._build_args.get(name, self._global_args.get(name) if default is None else default)

    def set_env(self, name: str, value: str) -> None:
        """ENV: for this stage, those on top of it, and the image."""
        self.env[name] = value

    def child(self, env: Mapping[str, str] | None = None) -> Scope:
        """The scope of a stage FROM this one: it inherits ARGs and ENV. ``env``: the environment, if the image's differs by now."""
        scope = Scope(self._build_args, self._global_args, self.env if env is None else env, escape=self.escape)
        scope.args = dict(self.args)
        return scope

    def run_args(self) -> dict[str, str]:
        """The build arguments that a RUN gets in its environment: with it, part of its cache key."""
        return {name: value for name, value in self.args.items() if value is not None and name not in self.env}

    def run_environment(self) -> dict[str, str]:
        """The whole environment of a RUN: predefined ARGs that the caller gave, declared ARGs, ENV."""
        given = {name: self._build_args[name] for name in PREDEFINED if name in self._build_args}
        return given | self.run_args() | self.env


class GlobalScope:
    """What holds before the first FROM, and on FROM lines. ``args`` are the values, platform ARGs among them.

    Raises DockerfileError where a default can't be substituted.
    """

    def __init__(self, dockerfile: Dockerfile, build_args: Mapping[str, str], platforms: Mapping[str, str]) -> None:
        self.build_args = dict(build_args)
        self.escape = dockerfile.directives.escape
        self.args: dict[str, str] = {name: self.build_args.get(name, value) for name, value in platforms.items()}
        for arg in dockerfile.global_args:
            for name, default in arg.defaults:
                self._declare(arg, name, default)

    def _declare(self, arg: Arg, name: str, default: str | None) -> None:
        try:
            name = substitute(name, self.args.get, escape=self.escape).text
            value = None if default is None else substitute(default, self.args.get, escape=self.escape).text
        except SubstitutionError as err:
            raise arg.source.fault(f"ARG: {err}", name if default is None else default, err.offset) from None
        if name in self.build_args:
            self.args[name] = self.build_args[name]
        elif value is not None:
            self.args[name] = value

    def lookup(self, name: str) -> str | None:
        """The value that ``$name`` has on a FROM line."""
        return self.args.get(name)

    def stage(self, env: Mapping[str, str]) -> Scope:
        """The scope of a stage whose base image has the environment ``env``."""
        return Scope(self.build_args, self.args, env, escape=self.escape)


def undeclared(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> list[str]:
    """The build arguments that no ARG declares, which is likely a typing mistake: docker warns of them."""
    declared = set(PREDEFINED) | set(platform_args(Platform.here(), Platform.here()))
    instructions = [item for stage in dockerfile.stages for item in stage.instructions]
    for item in [*dockerfile.global_args, *instructions]:
        found = item.trigger if isinstance(item, Onbuild) else item
        if isinstance(found, Arg):
            declared |= {name for name, _ in found.defaults}
    return [
        name
        for name in build_args
        if name not in declared and not name.startswith("BUILDKIT_") and name != "SOURCE_DATE_EPOCH"
    ]
