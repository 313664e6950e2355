"""Word lists for names of people, in English. Lower case; order and repetition have no meaning."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TITLES = _words(
    """
    dr fr frau herr madam miss mme mr mrs ms mx prof professor rev reverend señor señora sir sr sra
    """
)
"""Titles before a name."""

SUFFIXES = _words(
    """
    esq ii iii iv jr md phd sr
    """
)
"""Suffixes after a name."""

NO_PERSON = _words(
    """
    academy agency airport alley apartments arena art arts associates association ave avenue award awards bagels bakery bank bar
    barber barbershop bbq beach bistro blvd books bookshop boulevard boutique brewery brewing bridge bros brothers building burger
    burgers cafe café campus cathedral center centre chapel church circle city classic cleaners clinic club co coffee college
    company consulting cookies corp corporation county court creamery creek cup custom dance day dayspa deli dental dentistry
    design diner district donuts drive east electric elementary events factory farm farms festival field fitness florist flowers
    forest foundation furniture gallery garage garden gardens gas gifts grill grille group gym hair hall hardware heights high
    highland highlands hill hills hospital hotel house ice inc index inn institute island jewelers jewelry jr's juice kitchen lake
    lakes landing lane law library llc llp lounge ltd mall manor market markets massage memorial mill month monument motors
    mountain museum music nails news north northeast northwest nursery office oil orchard outfitters paint painting park parkway
    party pastries pets pharmacy photography pizza pizzeria place plaza plumbing point prize pub realty recipe records repair
    restaurant ridge river road roasters roofing room rooms row salon salons sandwiches school science shoes shop shoppe shops
    society solutions south spa sports springs square stadium station steakhouse store street studio studios supply sushi tacos
    tailor tailors tap taproom taqueria tavern tea theater theatre tire tires tower toys trail travel trust university valley vet
    veterinary view village vineyard vintage week wellness west wine wines woods works yard yoga zoo
    """
)
"""Business, place, institution, event: a run of capitalized words with one of them is no person."""

COMMON = _words(
    """
    april art august austin autumn best bill blaze brandy brooklyn candy carol carter chance charity charlotte chase china
    christian clay cody cole dakota dale dallas dawn day dean denver destiny drew earl early faith ford frank gene georgia ginger
    grace grant guy harmony heath heather holly hope houston hunter iris ivy jack jackson jade jasmine jean jewel joy june justice
    kelly kenya king lance lee lily lincoln london long love madison marina mark mason maverick max may melody mercedes mercy
    miles mills misty montana olive paige paris parker pat patience pearl penny peter phoenix piper price prince ray reed rich
    river rob robin rocky rod rose royal ruby rusty sage sandy savannah sharp short sierra skip sky sterling stone storm strong
    summer sunny sydney taylor terry tiffany tracy trinity troy tucker turner van victoria virginia wade ward will wren young
    """
)
"""First names that are also words, months, places or brands: they need a known surname or an introduction."""

ORDINARY = _words(
    """
    a all amazing american an and april are as at atlanta august be been best big book but by call can chinese come could december
    did do does don't english every february food for free french fresh friday from georgia get good great had happy has have he
    her highly his how i i'm if in indian is it it's italian january japanese join july june let's little local love loved march
    may mexican monday more my new no not november now october of old on open or our place please recommend saturday september
    service she should so sunday thai thank thanks that the their these they this those thursday to today tomorrow tonight try
    tuesday visit was we wednesday were what when where who why will with would yes you your
    """
)
"""Words that are capitalized at the start of a sentence or in a heading, and are no part of a name."""

INTRODUCE = _words(
    """
    agent ask attention attn author barista bartender call cheers chef client contact customer dear email founder hello hi love manager meet met name owner
    patient regards review reviewer server signed sincerely stylist text thanks therapist waiter waitress
    """
)
"""Words before a name that introduce it and are no part of it."""
