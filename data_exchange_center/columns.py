"""Column names, once. Every table, feature and query spells a column through these constants."""

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"  # int64, unix seconds, UTC
POSITION = "position"  # int64, 0-based place of the row in the input: breaks ties of one user's events, never a feature
RATING = "rating"  # float32, null where the log has none
LABEL = "label"  # int8: 1 positive, 0 negative
SPLIT = "split"  # string: train, test or online
EVENT_ID = "event_id"  # string, identifies an event of a log in which one may come twice
ROW_ID = "row_id"  # int64, identifies a row of the split table (its 0-based place in it)

TITLE = "title"
TERMS = "genres"  # list<string>: the item's terms; what the term channel matches on
YEAR = "year"  # int64, 0 when unknown

TRAIN, TEST, ONLINE = "train", "test", "online"
