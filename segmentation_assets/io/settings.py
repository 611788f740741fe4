"""Reading the settings file and the taxonomy it names.

What belongs here: YAML from disk to a validated ``Settings``. What does not: defaults and ranges (core/settings).
"""

from pathlib import Path

import yaml
from pydantic import ValidationError

from segmentation_assets.core.labels import Taxonomy, parse_taxonomy, shipped_taxonomy
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.users.personas import NameTable, parse_names, shipped_names
from segmentation_assets.core.users.rules import Rules, parse_rules, shipped_rules
from segmentation_assets.errors import SegmentsError


class SettingsError(SegmentsError):
    """The settings file cannot be used."""


def load_settings(path: Path | None) -> Settings:
    """Read settings; None gives the defaults.

    Raises:
        SettingsError: not there, not YAML, an unknown name, or a value out of range; names each.
    """
    if path is None:
        return Settings()
    cure = "See examples/segments.yaml for every setting with its default."
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(
            f"The settings file {path} cannot be read: {error.strerror}.", "Check SEGMENTS_CONFIG or --config."
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are not UTF-8, or a date that is none
        raise SettingsError(
            f"The settings file {path} is not valid YAML: {' '.join(str(error).split())[:300]}.", cure
        ) from None
    try:
        return Settings.model_validate(content if content is not None else {})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()[:8])
        raise SettingsError(f"The settings file {path} cannot be used: {problems}.", cure) from None


def with_overrides(settings: Settings, **clusters: str | int | None) -> Settings:
    """The settings with some of ``clusters`` replaced; None leaves a value as it is.

    Raises:
        SettingsError: a value is out of range; names it.
    """
    wanted = {name: value for name, value in clusters.items() if value is not None}
    try:
        return Settings.model_validate(
            {**settings.model_dump(), "clusters": {**settings.clusters.model_dump(), **wanted}}
        )
    except ValidationError as error:
        raise SettingsError(
            "; ".join(
                dict.fromkeys(f"{e['loc'][1] if len(e['loc']) > 1 else 'clusters'}: {e['msg']}" for e in error.errors())
            )
            + ".",
            f"Given were {wanted}. k is a whole number of at least 2, or auto.",
        ) from None


def load_taxonomy(settings: Settings, settings_file: Path | None) -> Taxonomy:
    """Read the taxonomy that the settings name, relative to the settings file; the shipped one where they name none.

    Raises:
        SettingsError: the file cannot be read.
        TaxonomyError: it is not a taxonomy.
    """
    if settings.labels.taxonomy is None:
        return shipped_taxonomy()
    return parse_taxonomy(*_read(settings.labels.taxonomy, settings_file, "taxonomy", "labels.taxonomy"))


def load_rules(settings: Settings, settings_file: Path | None) -> Rules:
    """Read the rules that the settings name, relative to the settings file; the shipped ones where they name none.

    Raises:
        SettingsError: the file cannot be read.
        RulesError: they are not rules.
    """
    if settings.rules.file is None:
        return shipped_rules()
    return parse_rules(*_read(settings.rules.file, settings_file, "file of rules", "rules.file"))


def load_persona_names(settings: Settings, settings_file: Path | None) -> NameTable:
    """Read the table of names that the settings name, relative to the settings file; the shipped one where they name
    none.

    Raises:
        SettingsError: the file cannot be read.
        PersonaNamesError: it is not a table of names.
    """
    if settings.personas.names is None:
        return shipped_names()
    return parse_names(*_read(settings.personas.names, settings_file, "table of names", "personas.names"))


def beside(path: str, settings_file: Path | None) -> Path:
    """A path of the settings, relative to the settings file where it is not absolute."""
    found = Path(path).expanduser()
    return found if found.is_absolute() or settings_file is None else settings_file.parent / found


def _read(name: str, settings_file: Path | None, what: str, setting: str) -> tuple[str, str]:
    path = beside(name, settings_file)
    try:
        return path.read_text("utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        problem = f"The {what} {path} cannot be read ({type(error).__name__})."
        raise SettingsError(problem, f"Check {setting}.") from None
