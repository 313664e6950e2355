"""Keys of services are found by the form that their issuer gives them, and passwords by what stands before them. All are made up."""

from __future__ import annotations

import pytest

from tunectl.backends.text.pii_resources import tools
from tunectl.privacy.mask import PiiMasker

pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")
pytest.importorskip("faker")

HEX, MIXED = "0123456789abcdef", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"
KEYS = [
    f"xapp-1-A0123456789-{MIXED}",
    f"hooks.slack.com/services/T00000000/B00000000/{MIXED[:24]}",
    f"https://discord.com/api/webhooks/123456789012345678/{MIXED}{MIXED}",
    f"123456789:AA{MIXED}x",
    f"key-{HEX * 2}",
    f"{HEX * 2}-us12",
    f"shpat_{HEX * 2}",
    f"sq0atp-{MIXED[:22]}",
    f"EAACEdEose0cBA{MIXED}",
    f"dckr_pat_{MIXED[:27]}",
    f"dapi{HEX * 2}",
    f"doo_v1_{HEX * 4}",
    f"{MIXED[:14]}.atlasv1.{MIXED}{MIXED}",
    f"hvs.CAES{MIXED}",
    f"s.{MIXED[:24]}",
    f"glsa_{MIXED}_{HEX[:8]}",
    f"glrt-{MIXED[:20]}",
    f"GR1348941{MIXED[:20]}",
    f"NRAK-{MIXED[:27].upper()}",
    f"HRKU-{HEX[:8]}-{HEX[:4]}-{HEX[:4]}-{HEX[:4]}-{HEX[:12]}",
    f"lin_api_{MIXED}{MIXED[:8]}",
    f"ntn_{MIXED}{MIXED[:11]}",
    f"pat{MIXED[:14]}.{HEX * 4}",
    f"ATATT3xFfGF0{MIXED}{MIXED}",
    f"PMAK-{HEX}{HEX[:8]}-{HEX * 2}01",
    f"sbp_{HEX * 2}{HEX[:8]}",
    f"pscale_tkn_{MIXED}",
    f"gsk_{MIXED}{MIXED[:20]}",
    f"r8_{MIXED}",
    f"pplx-{MIXED}{MIXED[:16]}",
    f"xai-{MIXED}{MIXED}",
    f"LTAI5t{MIXED[:18]}",
    f"AKIDz8{MIXED[:30]}",
    f"AQVN{MIXED}{MIXED[:3]}",
    f"AGE-SECRET-KEY-1{'QPZRY9X8' * 7}QP",
    f"ops_eyJ{MIXED}{MIXED}",
    f"rubygems_{HEX * 3}",
    f"cio{MIXED}",
    f"oy2{HEX * 2}abcdefghijk",
    f"1//0g{MIXED}{MIXED[:10]}",
    f"SK{HEX * 2}",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
]
PASSWORDS = [
    ("Mein Passwort ist ", "Sommer2024", "!"),
    ("mot de passe : ", "Soleil2024", ""),
    ("contraseña: ", "Verano2024", ""),
    ('password: "', "pa ss w0rd long", '"'),
    ("'password' => '", "hunter22", "'"),
    ("<password>", "hunter22", "</password>"),
    ('<add key="password" value="', "hunter22", '"/>'),
    ("tool --password ", "hunter22", " run"),
    ("machine host login ada password ", "s3cr3tPass", ""),
    ("curl -u ada:", "hunter22", " https://example.org"),
    ("mysql -u root -p", "hunter22", " shop"),
    ("sshpass -p '", "hunter22", "' ssh host"),
    ("Cookie: sessionid=", HEX, "; Path=/"),
    ("Authorization: Bearer ", "my-own-token-123", ""),
    ("-H 'authorization: Token ", "development2026", "'"),
    ("Bearer ", "aB3dE5fG7hJ9", ""),
    ("my secret is ", "hunter22", ""),
    ("The secret is ", "hunter2", ""),
    ("my secret is ", "correcthorse9", "."),
    ("the token is ", "swordfish7", " today"),
    ("The secret is ", "version2024", ""),
    ("The password is ", "version2", ""),
    ("Bearer ", "tokenabcdef1234", ""),
    ("ApiKey ", "supersecretkey2024", ""),
    ("ApiKey ", "arrangements-of-the-firm", ""),
    ("Bearer ", "abcdefghij-klmnopqrst-uvwxyz", ""),
    ("Bearer ", "correct-horse-battery-staple", " is mine"),
    ('"Bearer ', "arrangements-of-the-firm", '"'),
    ("Bearer ", "understanding2026", ""),
    ("Basic ", "sunshinemoon2026", ""),
    ("Token ", "swordfishswordfishes", ""),
    ("Bearer ", "accounting/bookkeeping", ""),
    ("Basic ", "dXNlcjpwYXNz/d29yZHM", ""),
    ("Basic ", "QWxhZGRpbjpvcGVu/IHNl", ""),
    ("Basic ", "accounting/bookkeeping2026", ""),
    ("Authorization: Basic ", "accounting/bookkeeping", ""),
    ("Token ", "xQzRtBwMing2024", ""),
    ("Authorization: Bearer ", "abcdefghijklmnopqrstuvwxyz", ""),
    ("postgresql://", "ada:hun/ter22", "@db.example.org/x"),
    ("https://example.org/cb?code=", HEX, "&state=1"),
]
HARMLESS = [
    "The key is under the mat, and the secret is out.",
    "password: required",
    "Sales of 1507 rose to 126 and 1507 again.",
    "Figure 4.1 shows 4111 plates, 1111 cups, 1111 forks.",
    "See src/tunectl/privacy/decoded_text.py and tests/unit/privacy.",
    f"commit {HEX * 2}{HEX[:8]}",
    "The antidisestablishmentarianism of internationalization",
    "/Users/Work/Projects2026/Reports/Quarterly1",
    "https://www.example.com/science/article/pii/S096098220600021X",
    "Documents/QuarterlyReports2026Version1Final",
    "Token classification2024 works, basic understanding2026 of it",
    "Bearer arrangements-of-the-firm",
    "The secret is version2 of the recipe",
    "The secret is version2",
    "The secret is step12.",
    "the token is number7 in the list",
    "Token classification2024",
    "Basic understanding2026",
    "Bearer arrangements-of-the-firm, and basic proof-of-concept-work here.",
    "basic accounting/bookkeeping",
    "She knows basic Python/JavaScript/SQL, and basic object-oriented/functional programming.",
    "token classification/recognition of names",
    "Dinner @ eight, www.example.org/a/b_c_d",
]


@pytest.fixture(scope="module")
def masker() -> PiiMasker:
    return PiiMasker(tools(regions=["US"], locales=["en_US"]))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_masked_by_the_form_of_its_issuer(masker: PiiMasker, key: str) -> None:
    masked = masker.mask(f"It is {key} today")
    assert (masked.counts["secret"], key[-12:] in masked.text) == (1, False)
    assert masked.text.startswith("It is ")
    assert masked.text.endswith(" today")


@pytest.mark.parametrize(("before", "secret", "after"), PASSWORDS)
def test_a_password_is_masked_by_what_stands_before_it(masker: PiiMasker, before: str, secret: str, after: str) -> None:
    text = masker.mask(before + secret + after).text
    assert secret not in text
    assert (text.startswith(before), text.endswith(after)) == (True, True)


@pytest.mark.parametrize("head", ["PGP PRIVATE KEY BLOCK", "OPENSSH PRIVATE KEY"])
def test_a_private_key_is_masked_whole(masker: PiiMasker, head: str) -> None:
    text = masker.mask(f"-----BEGIN {head}-----\nlQOYBF1\n-----END {head}-----\nafter").text
    assert text == "[SECRET_1]\nafter"
    putty = "PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nAAAAIH0123\nPrivate-MAC: 00"
    assert "AAAAIH" not in masker.mask(putty).text


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_one_stays(masker: PiiMasker, text: str) -> None:
    assert masker.mask(text).text == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4111  1111  1111  1111", "4111"),
        ("4111\n1111\n1111\n1111", "1111"),
        ("4111+1111+1111+1111", "4111"),
        ("6759649826438453", "6759649826438453"),
        ("DE89.3704.0044.0532.0130.00", "3704"),
        ("DE89\t3704\t0044\t0532\t0130\t00", "3704"),
        ("ssn is 536228726", "536228726"),
        ('{"ssn": "536228726"}', "536228726"),
        ('{"first_name": "Sarah", "last_name": "Miller"}', "Miller"),
        ("My name is Иван Петров", "Петров"),
        ("My name is 王小明", "王小明"),
        ("404_555_0123", "0123"),
        ("https://t.me/+14045550123", "4045550123"),
        ("ada=40example.org", "ada"),
        ("ada@example。org", "ada"),
        (f"{'a' * 70}@example.org", "aaaa"),
        ("\\ud835\\udc1ada@example.org", "da@"),
    ],
)
def test_other_ways_to_write_personal_data(masker: PiiMasker, text: str, value: str) -> None:
    assert value not in masker.mask(text).text
