"""The few words that the skills share: people, crops, animals, tools, places, days.

One small vocabulary for all skills is what lets a model of a million parameters read them all;
every word is lower-case ASCII but the names, and no word belongs to two groups.
"""

from __future__ import annotations

__all__ = ["ANIMALS", "COUNTED", "CROPS", "DAYS", "FRUITS", "GROUPS", "PEOPLE", "PLACES", "TOOLS"]

PEOPLE = (
    *("Ada", "Ben", "Cora", "Dan", "Ela", "Finn", "Gus", "Hana", "Ivo", "June", "Kit", "Lena"),
    *("Mara", "Nils", "Odo", "Pia", "Rolf", "Sara", "Tom", "Una", "Vera", "Will", "Yara", "Zeno"),
)
CROPS = (
    *("barley", "oats", "wheat", "rye", "beans", "peas", "corn", "flax", "hops", "lentils"),
    *("millet", "clover"),
)
ANIMALS = (
    *("hen", "goat", "sheep", "duck", "horse", "cow", "pig", "goose", "donkey", "dog", "cat", "ox"),
)
TOOLS = (
    *("spade", "rake", "ladder", "rope", "hammer", "bucket", "plough", "saw", "sickle", "hoe"),
    *("lantern", "barrow"),
)
FRUITS = (
    *("apple", "pear", "plum", "cherry", "fig", "grape", "quince", "melon", "peach", "lemon"),
    *("berry", "date"),
)
GROUPS: dict[str, tuple[str, ...]] = {
    "crops": CROPS,
    "animals": ANIMALS,
    "tools": TOOLS,
    "fruits": FRUITS,
}
"""Word groups by name; a word's group is unique."""

COUNTED = (
    *("sacks", "carts", "hens", "eggs", "apples", "pears", "goats", "bales", "jars", "baskets"),
    *("ducks", "plums", "seeds", "crates", "spades", "lambs", "cows", "ladders", "loaves", "nuts"),
)
PLACES = ("mill", "barn", "market", "bridge", "well", "orchard", "shed", "gate", "field", "pond")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
