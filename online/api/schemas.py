"""Every request and response of the HTTP contract, declared once: they validate at run time and make `/openapi.json`.

Types are strict: no string for a number, no boolean for an integer, no fraction for an id (1.0 is the integer 1), no NaN. The
models are generic in the types of user and item ids, which the release in use declares; `models(user_type, item_type)` gives
the concrete set.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from online.pipeline.release_view import IdType


def _whole(value: Any) -> Any:
    """`1.0` is the integer 1 in JSON Schema, and some clients write it so; 1.5, true and "1" are left to be refused."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)  # comes after the bounds, so that these stay in the document
IntId = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), WHOLE]
StrId = Annotated[str, Field(min_length=1, max_length=256)]
UserT = TypeVar("UserT")
ItemT = TypeVar("ItemT")

Channel = Literal["vector", "term", "item", "popularity"]
EventKind = Literal["impression", "click", "like", "dislike", "rating"]
Year = Annotated[int, Field(ge=0, le=9999), WHOLE]
UnixSeconds = Annotated[int, Field(ge=0, le=253_402_300_799, description="unix seconds"), WHOLE]
Term = Annotated[str, Field(min_length=1, max_length=256)]

MAX_SIZE = 500
MAX_EXCLUDE = 1000
MAX_TERMS = 64
MAX_SCORED = 2000
MAX_EVENTS = 1000
MAX_BLOCKED = 1000


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        return cls.__name__


class YearRange(Strict):
    """Inclusive on both ends; an item without a year is in no range."""

    gte: Year | None = None
    lte: Year | None = None

    @model_validator(mode="after")
    def _ordered(self) -> YearRange:
        if self.gte is not None and self.lte is not None and self.gte > self.lte:
            raise ValueError(f"gte {self.gte} is after lte {self.lte}")
        return self


class FiltersBody(Strict):
    """Conditions that every recommended item meets."""

    genres: Annotated[list[Term], Field(max_length=MAX_TERMS)] = Field(
        [], description="any of these; empty: no condition"
    )
    year: YearRange | None = None


class RecommendBody(Strict, Generic[UserT, ItemT]):
    """`POST /ml/rec`. Only `userid` is required."""

    userid: UserT
    size: Annotated[int, Field(ge=1, le=MAX_SIZE), WHOLE] = Field(
        50, description="items in the answer, when that many are eligible"
    )
    exclude: list[ItemT] = Field([], max_length=MAX_EXCLUDE, description="items that are not wanted")
    filters: FiltersBody | None = None
    channels: Annotated[list[Channel], Field(min_length=1, max_length=16)] | None = Field(
        None, description="recall channels that may propose items; all of them when absent"
    )
    diversity: float = Field(0.0, ge=0, le=1, description="0: by score alone; 1: as unlike each other as possible")
    min_score: float = Field(0.0, ge=0, le=1, description="scored candidates below this are left out")
    now: UnixSeconds | None = Field(None, description="the moment of the request; by the `clock` setting when absent")
    explain: bool = Field(False, description="adds channels, features and logits to each item, and timings_ms")


# The query parameters of `GET /ml/rec` that stand for fields of inner objects.
RECOMMEND_QUERY: dict[str, tuple[str, ...]] = {
    "genres": ("filters", "genres"),
    "year_gte": ("filters", "year", "gte"),
    "year_lte": ("filters", "year", "lte"),
}


class ScoreBody(Strict, Generic[UserT, ItemT]):
    """`POST /ml/score`: scores of given items for a user, in the order asked."""

    userid: UserT
    itemids: list[ItemT] = Field(min_length=1, max_length=MAX_SCORED)
    now: UnixSeconds | None = None
    explain: bool = Field(False, description="adds `items`: features and logits of each, and timings_ms")


class EventBody(Strict, Generic[UserT, ItemT]):
    """One thing that a user did. The same `event_id` counts once."""

    event_id: Annotated[str, Field(min_length=1, max_length=256)]
    userid: UserT
    itemid: ItemT
    event: EventKind
    value: float | None = Field(None, description="the rating, for a rating")
    timestamp: UnixSeconds
    request_id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="of the answer that showed the item"
    )


class EventsBody(Strict, Generic[UserT, ItemT]):
    """`POST /ml/events`."""

    events: list[EventBody[UserT, ItemT]] = Field(min_length=1, max_length=MAX_EVENTS)


class FoundBy(Strict):
    """Where a channel placed an item: rank from 1, and that channel's own score."""

    rank: int
    score: float


class Logits(Strict):
    """The two scores before the sigmoid."""

    score: float
    like: float


class RecommendedItem(Strict, Generic[ItemT]):
    """`score` orders the list, `like` is the calibrated probability; the rest comes with `explain`."""

    itemid: ItemT
    score: float
    like: float
    channels: dict[str, FoundBy] = Field({}, description="which channels found it; `fill` when none did")
    features: dict[str, Any] = Field({}, description="raw values as scored, by feature name")
    logits: Logits | None = None
    explored: float | None = Field(
        None, description="probability with which exploration drew the item into the list; absent when its score did"
    )


class RecommendAnswer(Strict, Generic[ItemT]):
    """Best first."""

    item_list: list[RecommendedItem[ItemT]]
    release: str
    request_id: str
    cold_start: bool = Field(description="the release does not know the user")
    degraded: list[str] = Field(description="parts that could not be asked in time; empty in normal operation")
    scored: int | None = Field(None, description="with explain: how many candidates were scored")
    timings_ms: dict[str, float] = Field({}, description="with explain: time of each stage")


class ScoredItem(Strict):
    features: dict[str, Any]
    logits: Logits | None


class ScoreAnswer(Strict, Generic[ItemT]):
    """`score[i]` and `like[i]` belong to `itemids[i]`."""

    itemids: list[ItemT]
    score: list[float]
    like: list[float]
    unknown_items: list[ItemT] = Field(
        description="those of the items that the release does not know, scored as new ones"
    )
    release: str
    request_id: str
    cold_start: bool
    degraded: list[str]
    items: list[ScoredItem] = Field([], description="with explain")
    timings_ms: dict[str, float] = {}


class EventsAnswer(Strict):
    accepted: int = Field(description="events that were new and are now durable")
    duplicates: int = Field(description="events whose event_id was known already")
    request_id: str


class UploadQuery(Strict):
    """The query of `POST /upload`."""

    user_id: Annotated[str, Field(max_length=256)] | None = Field(None, description="comes back with the answer")
    re_model: Literal["json", "csv"] = Field("json", description="form of the answer")
    full: bool = Field(False, description="adds the rows' labels and the AUC, where the file has labels")
    save: bool = Field(False, description="keeps the answer on the server and returns its name as `saved`")
    debug: bool = Field(False, description="adds timings_ms")


class UploadForm(Strict):
    """The body of `POST /upload`, multipart/form-data."""

    file: Annotated[
        str, Field(json_schema_extra={"format": "binary"}, description="Criteo TSV or slot text, .gz too, or Parquet")
    ]


class UploadAnswer(Strict):
    """`data[i]` is the probability of the file's row i."""

    code: Literal[200]
    dtype: Literal["float32"]
    data: list[Annotated[list[float], Field(min_length=1, max_length=1)]]
    user_id: str | None
    rows: int
    release: str
    request_id: str
    labels: list[int] = Field([], description="with full, where the file has labels")
    auc: float | None = Field(None, description="with full; null without labels, or when all are the same")
    saved: str | None = Field(None, description="with save: the name of the kept answer")
    timings_ms: dict[str, float] = Field(
        {}, description="with debug: receive, total, and score, which sums the threads"
    )


class PredictBody(Strict):
    """`POST /repair/predict`: one shop for one request, in raw values. Brand and shop may be new."""

    car_brand: Annotated[str, Field(min_length=1, max_length=64)]
    shop_id: IntId
    city_id: IntId | None = None
    distance_km: Annotated[float, Field(ge=0, le=1e6)] | None = None
    price_score: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    rating: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    text_raw: Annotated[str, Field(max_length=4000)] = Field("", description="what the customer wrote")


class PredictAnswer(Strict):
    score: float = Field(description="probability that the shop is taken")
    matched_brand_id: int = Field(description="of the brand, the same in every worker and for ever; 1: it has none")
    release: str
    request_id: str
    degraded: list[str] = Field(
        description="`vocabulary`: away, unknown tokens count as UNK; `new_token`: one was not taken up (no room, too many "
        "from this client, or not a name); empty in normal operation"
    )


class ErrorDetail(Strict):
    code: str
    message: str
    field: str | None = None


class ErrorAnswer(Strict):
    error: ErrorDetail


class Alive(Strict):
    status: Literal["alive"]


class Dependency(Strict):
    ok: bool
    detail: str = Field(description="empty when ok")


class SceneState(Strict):
    """Whether the rows of a scene can be scored; lists do not depend on it."""

    ready: bool
    scene: str
    release: str | None = Field(description="that this worker scores with")
    reason: str = Field(description="why not ready; empty when ready")


class Readiness(Strict):
    ready: bool
    reason: str = Field(description="why not ready; empty when ready")
    release: str | None = Field(description="that every worker answers from; null while they differ")
    workers: dict[str, str] = Field(description="process id -> the release it answers from")
    uploads: SceneState
    predictions: SceneState
    dependencies: dict[str, Dependency]


class Pointer(Strict):
    """`GET /`."""

    name: str
    release: str | None
    document: str
    example: str


class AdminPublishBody(Strict):
    """`POST /admin/publish`."""

    release: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="the newest when absent"
    )


class AdminRollbackBody(Strict):
    """`POST /admin/rollback`."""

    release: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="the one that was live before when absent"
    )


class AdminReloadBody(Strict):
    """`POST /admin/reload`: has no fields."""


class AdminItemsBody(Strict, Generic[ItemT]):
    """`POST /admin/items/block` and `/unblock`; an item may be of any release, of the live one or not."""

    itemids: list[ItemT] = Field(min_length=1, max_length=MAX_BLOCKED)


class AdminItemsAnswer(Strict, Generic[ItemT]):
    changed: int = Field(description="items that were not blocked (or unblocked) before")
    blocked: int = Field(description="items that are in no list now")
    unknown_items: list[ItemT] = Field(description="those asked about that the live release does not know; blocked too")
    request_id: str


class AdminBlockedAnswer(Strict, Generic[ItemT]):
    """`GET /admin/items/blocked`."""

    itemids: list[ItemT]


class AdminAnswer(Strict):
    release: str | None
    previous: str | None
    seconds: float
    stores: dict[str, Any] = {}


class Models:
    """The concrete request and response models for one pair of id types."""

    def __init__(self, user_id: Any, item_id: Any) -> None:
        self.recommend = RecommendBody[user_id, item_id]
        self.score = ScoreBody[user_id, item_id]
        self.events = EventsBody[user_id, item_id]
        self.items = AdminItemsBody[item_id]
        self.items_answer = AdminItemsAnswer[item_id]
        self.blocked_answer = AdminBlockedAnswer[item_id]
        self.recommend_answer = RecommendAnswer[item_id]
        self.score_answer = ScoreAnswer[item_id]
        self.user_id = user_id
        self.item_id = item_id


_ID_TYPES: dict[str, Any] = {"int64": IntId, "string": StrId}


@cache
def models(user_type: IdType, item_type: IdType) -> Models:
    """The models for a log whose ids have these types."""
    return Models(_ID_TYPES[user_type], _ID_TYPES[item_type])
