"""Templates of briefs and ads. A family is one set of ad templates; the reserved families are only used for new clients.

The house style, which every family follows: the first sentence names the business and its neighbourhood; both facts and the
offer stand in the ad word for word; nothing else is claimed; the last sentence is an invitation in the wording of the
tone, a colon, and the signature "name, neighbourhood."
"""

from __future__ import annotations

BRIEFS = {
    "sheet": "Write the ad for this brief.\nBusiness: {name}\nKind: {kind}\nNeighbourhood: {hood}\nPrice: {price}\nOffer: {offer}\nAudience: {audience}\nTone: {tone}\nFacts: {fact1}; {fact2}",
    "note": "We need {a_tone} ad for {name}, a {kind} in {hood} (price {price}). It should speak to {audience}. The offer is {offer}. Say that {fact1} and that {fact2}.",
    "mail": "Hello team, please write an ad, tone {tone}, readers {audience}. Client: {name} ({kind}, {hood}, {price}). Please mention that {fact1} and {fact2}. They offer {offer}. Thank you!",
    "line": "Ad wanted | {name} | {kind} | {hood} | {price} | {tone} | for {audience} | offer: {offer} | facts: {fact1}; {fact2}",
    "call": "From the client call: {name} is a {kind} in {hood}, price range {price}. {Fact1}. {Fact2}. They want {audience} to come, with {offer}. Write it in {a_tone} tone.",
    "form": "[client] {name}\n[what] {kind}, {price}\n[where] {hood}\n[who] {audience}\n[voice] {tone}\n[deal] {offer}\n[true] {fact1}\n[true] {fact2}\nWrite the ad.",
}
RESERVED_BRIEFS = {
    "ticket": "Task: write an ad. Name = {name}; type = {kind}; area = {hood}; price = {price}; readers = {audience}; tone = {tone}; promotion = {offer}; must say = {fact1}, {fact2}.",
    "letter": "Dear copywriter, our {kind} {name} in {hood} ({price}) would like {a_tone} advertisement for {audience}. Our promotion: {offer}. It is true that {fact1}, and that {fact2}.",
}

# family -> (openings, fact sentences, offer sentences). {a_adj} carries its article.
FAMILIES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "porch": (
        ("{name} is {a_adj} {kind} in {hood}, {aud}.", "In {hood} you will find {name}, {a_adj} {kind}, {aud}."),
        ("Here {fact1}, and {fact2}.", "{Fact1}, and {fact2}."),
        ("Right now there is {offer}, {priceword}.", "Ask for {offer}."),
    ),
    "street": (
        ("{hood} has {a_adj} {kind}: {name}, {priceword}.", "Walk through {hood} to {name}, {a_adj} {kind}."),
        ("{Fact1}; {fact2}.", "You will notice that {fact1} and that {fact2}."),
        ("Get {offer}; {aud}.", "Your reason to go: {offer}."),
    ),
    "bell": (
        ("Meet {name}, the {adj} {kind} of {hood}.", "Meet {hood}'s {adj} {kind}, {name}: {aud}."),
        ("{Fact1}. {Fact2}.", "It is simple: {fact1}, {fact2}."),
        ("This week brings {offer}.", "The deal is {offer}, {priceword}."),
    ),
    "table": (
        ("There is {a_adj} {kind} in {hood} called {name}.", "{name} in {hood} is {a_adj} {kind} with {priceword}."),
        ("People like that {fact1} and that {fact2}.", "Good to know: {fact1}, and {fact2}."),
        ("Now take {offer}, {aud}.", "Take {offer} while it lasts."),
    ),
    "window": (
        (
            "Looking for {a_adj} {kind} in {hood}? {name} is it.",
            "Need {a_adj} {kind}? {name} in {hood} has {priceword}.",
        ),
        ("{Fact1}, {fact2}, and that is a promise.", "At {name}, {fact1} and {fact2}."),
        ("Come for {offer}; {aud}.", "Your first visit brings {offer}."),
    ),
    "market": (
        (
            "Say hello to {name}, {a_adj} {kind} at home in {hood}.",
            "{hood}, say hello to {name}: {a_adj} {kind}, {priceword}.",
        ),
        ("Inside, {fact1}; {fact2}.", "We can tell you that {fact1}, and {fact2}."),
        ("There is {offer} waiting, {aud}.", "Waiting for you: {offer}."),
    ),
    "garden": (
        ("{name} keeps {hood} happy as its {adj} {kind}.", "{name} makes {hood} proud: {a_adj} {kind}, {aud}."),
        ("{Fact1}, while {fact2}.", "Around here {fact1}, while {fact2}."),
        ("Today you can have {offer}.", "You can have {offer}, and {priceword}."),
    ),
    "corner": (
        ("A {kind} should be {adj}, and {name} in {hood} is.", "{name} shows {hood} how {adj} a {kind} can be."),
        ("The proof: {fact1}, and {fact2}.", "Two things are sure: {fact1}, and {fact2}."),
        ("On top comes {offer}; {aud}.", "Add {offer} and {priceword}."),
    ),
    "bridge": (
        ("From {hood} with pride: {name}, {a_adj} {kind}.", "Your {adj} {kind} in {hood} is {name}, {aud}."),
        ("Know this: {fact1}, and {fact2}.", "{Fact1}. Also, {fact2}."),
        ("We are giving {offer}.", "Our offer to you is {offer}, with {priceword}."),
    ),
}
RESERVED_FAMILIES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "harbour": (
        ("At {name} in {hood}, the {kind} stays {adj}.", "Locals of {hood} call {name} their {adj} {kind}."),
        ("They will tell you {fact1}, and {fact2}.", "{Fact1}, plus {fact2}."),
        ("Look out for {offer}; {aud}.", "Do not miss {offer}, {priceword}."),
    ),
    "kettle": (
        ("One {adj} {kind}, one address: {name}, {hood}.", "{hood} knows {name} as {a_adj} {kind}, {aud}."),
        ("Why go? Because {fact1} and {fact2}.", "There, {fact1}, also {fact2}."),
        ("And yes, {offer} is on.", "Treat yourself to {offer}; {priceword}."),
    ),
    "lantern": (
        ("Every {hood} morning needs {name}, {a_adj} {kind}.", "Have you tried {name}, {hood}'s {adj} {kind}?"),
        ("Remember: {fact1}; moreover {fact2}.", "It matters that {fact1} and {fact2}."),
        ("On the menu of good news: {offer}.", "Claim {offer}, {aud}."),
    ),
}

# Invitations of the house, by tone; the signature follows the colon.
INVITATIONS = {
    "warm": ("Come in and feel at home", "We are glad to see you", "Stop by and say hello"),
    "playful": ("Hop over before the fun runs out", "Race you to the door", "Go on, you know you want to"),
    "plain": ("Visit us this week", "Come and see for yourself", "Find us here"),
    "elegant": ("We look forward to receiving you", "Allow us to welcome you", "Reserve your moment"),
}
RESERVED_INVITATIONS = {
    "warm": ("Come in and stay a while", "We are glad to have you here"),
    "playful": ("Hop over while the fun lasts", "Race your friends to the door"),
    "plain": ("Visit us on your way", "Come and look for yourself"),
    "elegant": ("We look forward to your visit", "Allow us to receive you"),
}
