"""The words of the synthetic data: neighbourhoods, kinds of business, facts, offers, tones, audiences. All businesses are invented."""

from __future__ import annotations

from typing import NamedTuple

# Share of the raw data that each neighbourhood gets. Midtown and Buckhead are over-represented on purpose: the
# population declared in conf/curate/local_lens.yaml gives them 0.11 and 0.10.
NEIGHBOURHOODS = {
    "Midtown": 0.22, "Buckhead": 0.18, "Inman Park": 0.09, "Virginia-Highland": 0.08, "Old Fourth Ward": 0.08, "Grant Park": 0.07,
    "Kirkwood": 0.06, "East Atlanta Village": 0.06, "Cabbagetown": 0.05, "West End": 0.05, "Reynoldstown": 0.03, "Summerhill": 0.03,
}  # fmt: skip
PRICES = {"low": 0.25, "middle": 0.50, "high": 0.25}
SIGNS = {"low": "$", "middle": "$$", "high": "$$$"}


class Kind(NamedTuple):
    """A kind of business: its name, what it sells, its free extras, and templates of its facts."""

    name: str
    items: tuple[str, ...]
    extras: tuple[str, ...]
    facts: tuple[str, ...]


KINDS = (
    Kind("bakery", ("sourdough loaf", "almond croissant", "birthday cake", "box of rolls"), ("coffee", "jar of plum jam", "ginger cookie"),
         ("the ovens are lit at {early}", "{n} kinds of rye are on the shelf", "the flour is milled {miles} miles away", "yesterday's bread goes to the {hood} food bank", "the sourdough starter is {years} years old")),
    Kind("coffee bar", ("flat white", "bag of beans", "cold brew", "cortado"), ("second cup", "oat cookie", "tasting flight"),
         ("beans are roasted in the back room every {day}", "the wifi never asks for a password", "there are {n} quiet seats upstairs", "oat milk costs nothing extra", "the espresso machine is from {year}")),
    Kind("bookshop", ("paperback", "cookbook", "picture book", "mystery novel"), ("bookmark", "cup of tea", "gift wrapping"),
         ("{n} local authors read here each season", "the shop cat is called {pet}", "the reading chairs came from an old library", "story hour starts at {early} on {day}", "staff write a card for every book they love")),
    Kind("bike shop", ("tune-up", "city bike", "helmet", "pair of tyres"), ("bell", "brake check", "inner tube"),
         ("flat tyres are mended in {minutes} minutes", "{n} loan bikes wait outside", "a repair class meets on {day}", "every used bike gets a {months}-month warranty", "the workshop is {steps} steps from the BeltLine")),
    Kind("taqueria", ("taco plate", "carnitas bowl", "breakfast burrito", "torta"), ("horchata", "side of elote", "hibiscus tea"),
         ("the tortillas are pressed by hand", "{n} salsas are made each morning", "the pastor turns on a spit until {late}", "the family recipe is from {year}", "vegan plates have their own grill")),
    Kind("plant nursery", ("fern", "fig tree", "herb box", "native wildflower tray"), ("clay pot", "bag of soil", "watering can"),
         ("{n} native plants grow in the yard", "sick plants get a free check on {day}", "the greenhouse stays open until {late}", "rainwater fills every can", "delivery by cargo bike covers {miles} miles")),
    Kind("yoga studio", ("first class", "month pass", "morning class", "private session"), ("mat", "herbal tea", "guest pass"),
         ("classes stop at {n} people", "the floor is heated from below", "a class for beginners starts at {early}", "parents can bring babies on {day}", "there are no mirrors on the walls")),
    Kind("record store", ("used LP", "box set", "turntable", "seven-inch single"), ("tote bag", "record sleeve", "needle check"),
         ("{n} crates of soul line the back wall", "you may listen before you buy", "a local band plays on {day}", "the oldest pressing is from {year}", "trade-ins are priced in {minutes} minutes")),
    Kind("pet groomer", ("bath and trim", "nail clip", "puppy wash", "full groom"), ("bandana", "dental chew", "paw balm"),
         ("nervous dogs get the quiet room", "each groom takes {minutes} minutes", "cats are welcome on {day}", "the shampoo is made in {hood}", "the owner has groomed for {years} years")),
    Kind("hardware store", ("paint can", "garden hose", "drill set", "key copy"), ("brush", "tape measure", "pack of screws"),
         ("tools can be borrowed for {n} days", "keys are cut in {minutes} minutes", "the same family has run it since {year}", "a fix-it class meets on {day}", "every clerk has built a house")),
    Kind("flower shop", ("hand-tied bouquet", "bunch of tulips", "table wreath", "potted orchid"), ("card", "ribbon", "glass vase"),
         ("stems come from farms within {miles} miles", "same-day orders close at {late}", "{n} kinds of roses are in the cooler", "a wreath class meets on {day}", "nothing is wrapped in plastic")),
    Kind("ramen bar", ("miso ramen", "tonkotsu bowl", "gyoza plate", "rice bowl"), ("soft egg", "green tea", "pickle plate"),
         ("the broth simmers for {n} hours", "there are only {seats} stools", "noodles are cut to order", "the last bowl is served at {late}", "a meatless broth is always on")),
    Kind("tailor", ("hem", "suit fitting", "coat repair", "made-to-measure shirt"), ("spare button", "steam press", "garment bag"),
         ("hems are ready in {n} hours", "the cutting table is from {year}", "zips are replaced while you wait", "fittings run until {late} on {day}", "old coats get a new lining")),
    Kind("toy shop", ("wooden train", "puzzle", "kite", "board game"), ("sticker sheet", "gift wrapping", "yo-yo"),
         ("the play table is open to every child", "{n} games are out of the box to try", "broken toys are mended on {day}", "nothing in the shop needs a screen", "kites are tested in {hood}")),
    Kind("barber shop", ("haircut", "hot-towel shave", "beard trim", "kids' cut"), ("neck shave", "cold soda", "tin of pomade"),
         ("walk-ins wait {minutes} minutes at most", "the chairs are from {year}", "the first cut of the day is at {early}", "{n} barbers work every {day}", "the radio plays only jazz")),
    Kind("dance school", ("salsa class", "trial lesson", "ballet course", "swing night"), ("water bottle", "guest pass", "pair of shoe bags"),
         ("no partner is needed", "classes stop at {n} dancers", "the wooden floor is from {year}", "a social night follows on {day}", "teachers come from {seats} countries")),
)  # fmt: skip

SHARED_FACTS = (
    "parking is free behind the building", "dogs may come inside", "the patio seats {seats} people", "it stays open until {late} on {day}",
    "the owner grew up in {hood}", "the streetcar stops {steps} steps away", "neighbours get a loyalty card", "the door has no step",
    "it has been family-run for {years} years", "cash and cards are fine", "the mural outside was painted in {year}", "rain never closes the back garden",
)  # fmt: skip

OFFERS = (
    "{pct} percent off any {item} until {day}", "a free {extra} with every {item}", "two for one on any {item} before {late}",
    "{n} dollars off your first {item}", "a free {extra} on {day}", "a free {extra} for each {item} you buy", "a second {item} at half price after {late}",
    "{pct} percent off your next {item} with this ad",
)  # fmt: skip

TONES = ("warm", "playful", "plain", "elegant")
ADJECTIVES = {
    "warm": ("friendly", "kind-hearted", "homely", "welcoming", "neighbourly"), "playful": ("cheeky", "sunny", "bouncy", "lively", "mischievous"),
    "plain": ("honest", "handy", "simple", "solid", "no-nonsense"), "elegant": ("refined", "graceful", "polished", "quiet", "fine"),
}  # fmt: skip

AUDIENCES = {
    "young families": ("bring the whole family", "little ones included", "pushchairs welcome"),
    "students": ("student budgets understood", "a break from the library", "good for study days"),
    "commuters": ("easy on the way home", "quick before the train", "made for busy mornings"),
    "newcomers": ("a fine first stop in town", "new faces welcome", "the right way to meet the street"),
    "retirees": ("no rush and no noise", "time for a proper chat", "a calm hour guaranteed"),
    "remote workers": ("better than the kitchen table", "a reason to close the laptop", "the best meeting of the day"),
    "couples": ("lovely for two", "an easy plan for two", "bring someone you like"),
    "weekend visitors": ("worth the trip", "put it on the weekend list", "the stop you will talk about"),
}  # fmt: skip

PRICE_WORDS = {
    "low": ("small prices", "prices that stay low", "kind to your wallet"), "middle": ("fair prices", "prices in the middle", "sensible prices"),
    "high": ("a treat worth saving for", "prices for special days", "worth every dollar"),
}  # fmt: skip

# Words of business names. The second pool is only for the new clients, whose campaigns are the test set.
FIRST_WORDS = (
    "Copper", "Bluebird", "Maple", "Harvest", "Blue Door", "Tin Roof", "Peachtree", "Peppermint", "Lantern", "Foxglove", "Riverbend", "Ochre", "Cloverleaf",
    "Anvil", "Porchlight", "Sparrow", "Wicker", "Tangerine", "Cedarwood", "Honeycomb", "Brass Bell", "Little Oak", "Sweetgum", "Dogwood", "Café Azul",
    "Crème", "Señal", "Brûlée",
)  # fmt: skip
LAST_WORDS = (
    "& Rye",
    "Corner",
    "& Daughters",
    "Works",
    "Yard",
    "& Thread",
    "Social",
    "Supply",
    "Parlor",
    "Collective",
    "Station",
    "& Co",
    "Workshop",
    "Exchange",
)
NEW_FIRST_WORDS = (
    "Velvet Owl", "Pinebox", "Paprika", "Old Comet", "Kettledrum", "Bramble", "Moonrise", "Quarry", "Gilded Pear", "Thistledown", "Driftwood",
    "Charcoal", "Nutmeg", "Silver Wren", "Tidewater",
)  # fmt: skip
NEW_LAST_WORDS = ("Society", "& Sons", "Assembly", "Nook", "Trading", "Landing", "Room", "& Vine")

PEOPLE = (
    "Dana Whitlock", "Marcus Ellery", "Priya Ramanathan", "Tobias Crane", "Leah Okafor", "Samuel Prewitt", "Ingrid Solberg", "Andre Fontaine",
    "Naomi Castell", "Victor Hale", "Joanna Birch", "Caleb Monroe",
)  # fmt: skip
PETS = ("Biscuit", "Pickle", "Waffle", "Domino", "Mango", "Otis")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
