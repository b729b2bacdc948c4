"""A scorer release as a process holds it: how its rows look and how its graph takes them. The model lies in the scorer."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_exchange_center.errors import ReleaseError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.release import Release, find_release
from data_exchange_center.rows.schema import RowSchema
from data_exchange_center.scored_rows import RowForm, row_form
from data_exchange_center.settings import Settings


@dataclass(frozen=True)
class RowView:
    """One release, opened.

    Attributes:
        form: which feature is which input of the graph, and which output answers.
        schema: of the rows in a file.
    """

    release: Release
    spec: FeatureSpec = field(repr=False)
    form: RowForm = field(repr=False)
    schema: RowSchema = field(repr=False)


def load_row_view(settings: Settings, release: str) -> RowView:
    """Opens and verifies a release of the settings' store.

    Raises:
        ReleaseError: a file is missing or altered, or the release is of another scene or kind; the message says which.
    """
    opened = find_release(settings, release)
    if opened.scene != settings.serve.upload_scene:
        raise ReleaseError(
            f"release {release} is of scene {opened.scene!r}, uploads are {settings.serve.upload_scene!r}"
        )
    form = row_form(opened)
    return RowView(opened, opened.spec(), form, form.row_schema())
