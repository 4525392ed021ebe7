"""The door: passwords, links, the idle lock, cookies; what it tells a stranger, and what hostile names become."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from urllib.parse import quote

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from httpx import Response

from schemas.person import Deed, Person, Role
from tests.unit.worklist.test_page import Words
from tests.unit.worklist.ward import PNEUMOTHORAX, Ward, read
from worker.record.audit import Audit
from worker.worklist import passwords
from worker.worklist.web.desk import Rules
from worker.worklist.web.entry import digest, local, new_secret

PASSWORD = "a gate through which all enters"
WRONG = "Name or password is not right"


class Counting:
    """A hasher that takes no time worth the name, and keeps what it was asked to verify."""

    def __init__(self) -> None:
        self.inner = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        self.verified: list[str] = []
        self.outdated = False

    def hash(self, password: str) -> str:
        return self.inner.hash(password)

    def verify(self, known: str, password: str) -> bool:
        self.verified.append(known)
        return self.inner.verify(known, password)

    def check_needs_rehash(self, known: str) -> bool:
        return self.outdated


@pytest.fixture(autouse=True)
def hasher(monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()
    monkeypatch.setattr(passwords, "_hasher", made)
    monkeypatch.setattr(passwords, "_nobody", made.hash("nobody has this password"))
    return made


def browser(ward: Ward, base: str = "http://localhost:8080") -> TestClient:
    """Somebody who is not signed in."""
    return TestClient(ward.app(), base_url=base, follow_redirects=False)


def member(ward: Ward, name: str = "dr one", role: Role = Role.RADIOLOGIST) -> Person:
    person = ward.people.add(name, role, ward.now)
    ward.people.set_password(person.id, passwords.hashed(PASSWORD))
    return person


def enter(client: TestClient, name: str = "dr one", password: str = PASSWORD, **more: str) -> Response:
    return client.post("/sign-in", data={"name": name, "password": password, **more})


def deeds(ward: Ward, **of: str) -> list[Deed]:
    return [deed for _, deed in Audit(ward.database).deeds(100, **of)]


# Signing in and out


def test_in_by_password_and_out_again(ward: Ward) -> None:
    member(ward)
    client = browser(ward)
    assert client.get("/").headers["location"] == "/sign-in?next=%2F"
    assert "Sign in" in client.get("/sign-in").text
    answer = enter(client, "DR  One")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    page = client.get("/").text
    assert "dr one" in page
    token = re.search(r'data-csrf="([0-9a-f]{64})"', page)
    assert token is not None
    kept = client.cookies["hilum"]
    answer = client.post("/sign-out", data={"csrf": token[1]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert "hilum" not in client.cookies
    client.cookies.set("hilum", kept)
    assert client.get("/").status_code == 303, "a cookie that was kept opens nothing"
    assert [deed.action for deed in deeds(ward)] == ["signed out", "signed in"]
    assert [deed.address for deed in deeds(ward)] == ["testclient"] * 2


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://localhost:8080", "hilum=SECRET; HttpOnly; Path=/; SameSite=lax"),
        ("https://localhost", "__Host-hilum=SECRET; HttpOnly; Path=/; SameSite=lax; Secure"),
    ],
)
def test_the_cookie(ward: Ward, base: str, expected: str) -> None:
    member(ward)
    client = browser(ward, base)
    cookie = enter(client).headers["set-cookie"]
    secret = cookie.partition("=")[2].partition(";")[0]
    assert len(secret) == 43  # 256 bits
    assert cookie.replace(secret, "SECRET") == expected
    token = re.search(r'data-csrf="(\w+)"', client.get("/").text)
    assert token is not None
    taken_back = client.post("/sign-out", data={"csrf": token[1]}).headers["set-cookie"]
    name, _, attributes = expected.partition("=SECRET; ")
    assert taken_back.startswith(f'{name}=""; ')
    assert set(attributes.split("; ")) | {"Max-Age=0"} == set(taken_back.split("; ")[1:]), "else a browser keeps it"


def test_a_session_is_new_whatever_cookie_the_browser_came_with(ward: Ward) -> None:
    member(ward)
    member(ward, "dr two")
    planted = new_secret()
    victim = browser(ward)
    victim.cookies.set("hilum", planted, domain="localhost.local")
    enter(victim)
    stranger = browser(ward)
    stranger.cookies.set("hilum", planted)
    assert stranger.get("/").status_code == 303
    # A live session of the attacker's own, planted: it ends where the victim signs in.
    attacker = browser(ward)
    enter(attacker, "dr two")
    planted = attacker.cookies["hilum"]
    victim = browser(ward)
    answer = victim.post(
        "/sign-in", data={"name": "dr one", "password": PASSWORD}, headers={"Cookie": f"hilum={planted}"}
    )
    assert planted not in answer.headers["set-cookie"]
    assert attacker.get("/").status_code == 303


# What a stranger learns


def test_a_stranger_learns_neither_names_nor_locks_nor_who_is_shut_out(ward: Ward, hasher: Counting) -> None:
    member(ward, "keeper", Role.ADMINISTRATOR)
    member(ward)
    ward.people.add("invited", Role.RADIOLOGIST, ward.now)
    ward.people.disable(member(ward, "gone").id)
    locked = member(ward, "locked")
    for _ in range(6):
        ward.people.wrong_password(locked.id, ward.now)
    client = browser(ward)
    answers = {}
    for name in ("dr one", "unknown", "invited", "gone", "locked", "", "x" * 5000, "dr\0"):
        hasher.verified.clear()
        answer = enter(client, name, "not the password at all")
        answers[name] = (answer.status_code, answer.text.replace(f'value="{name[:100]}"', "").replace(" autofocus", ""))
        assert len(hasher.verified) == 1, f"{name[:9]!r} takes another time"
    assert len({code for code, _ in answers.values()}) == 1
    assert WRONG in answers["unknown"][1]
    shown = {name: text for name, (_, text) in answers.items() if name not in {"", "dr\0"}}
    assert len(set(shown.values())) == 1


def test_the_right_password_of_a_locked_account_is_no_better_than_a_wrong_one(ward: Ward) -> None:
    person = member(ward)
    client = browser(ward)
    for _ in range(5):
        assert WRONG in enter(client, password="no").text
    right, wrong = enter(client), enter(client, password="no")
    assert (right.status_code, right.text) == (wrong.status_code, wrong.text) == (401, right.text)
    ward.now += timedelta(seconds=61)
    assert enter(client).status_code == 303, "tries while it was locked lock it no longer"
    (locked,) = [deed for deed in deeds(ward, who="dr one", action="wrong password") if deed.detail["locked"]]
    assert len(deeds(ward, who="dr one", action="wrong password")) == 5
    assert locked.who == person.name


def test_whoever_is_shut_out_does_not_come_in(ward: Ward) -> None:
    member(ward, "keeper", Role.ADMINISTRATOR)
    ward.people.disable(member(ward).id)
    assert enter(browser(ward)).status_code == 401


def test_a_name_that_is_not_known_is_noted_without_it(ward: Ward) -> None:
    enter(browser(ward), "my password, in the wrong field", "x")
    (deed,) = deeds(ward)
    assert (deed.who, deed.action, deed.detail) == ("nobody", "wrong name", {})
    assert "password" not in str(deed)


def test_too_many_at_once_are_told_to_wait(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    member(ward)
    client = browser(ward)
    enter(client)
    taken = [passwords._queue.acquire(blocking=False) for _ in range(passwords._WAITING)]
    try:
        assert all(taken)
        for path, data in (
            ("/sign-in", {"name": "dr one", "password": PASSWORD}),
            ("/locked", {"password": PASSWORD}),
        ):
            answer = client.post(path, data=data)
            assert answer.status_code == 429
            assert "Too many people sign in" in answer.text
        assert client.get("/").status_code == 200, "who is in works on"
    finally:
        for _ in taken:
            passwords._queue.release()
    assert deeds(ward, action="wrong password") == []
    assert enter(client).status_code == 303


def test_a_password_hashed_in_an_older_way_is_hashed_anew_when_there_is_time(
    ward: Ward, hasher: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    member(ward)
    before = ward.people.credentials("dr one")
    hasher.outdated = True

    def busy(_: str) -> str:
        raise passwords.Busy

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "hashed", busy)
        assert enter(browser(ward)).status_code == 303
    assert ward.people.credentials("dr one") == before
    assert enter(browser(ward)).status_code == 303
    after = ward.people.credentials("dr one")
    assert before is not None
    assert after is not None
    assert before.password != after.password


FORGED = [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]


@pytest.mark.parametrize("headers", FORGED, ids=lambda headers: str(*headers.items()))
def test_no_other_site_signs_anybody_in(ward: Ward, headers: dict[str, str]) -> None:
    """Login CSRF: the victim would work in the attacker's name."""
    person = member(ward)
    ward.people.invite(person.id, digest("link"), ward.now + timedelta(hours=1))
    client = browser(ward)
    ward.session(Role.RADIOLOGIST, "dr one")
    data = {"name": "dr one", "password": PASSWORD, "again": PASSWORD}
    for path in ("/sign-in", "/locked", "/welcome/link"):
        answer = client.post(path, data=data, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.text
        assert "set-cookie" not in answer.headers


# Where to go next

ELSEWHERE = [
    "https://evil.example",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "http://[",
    "//[",
    "evil.example",
    "",
    "?next=//evil.example",
    "/" + "a" * 2000,
    "/a\r\nSet-Cookie: x=1",
]


def test_nobody_is_sent_elsewhere(ward: Ward) -> None:
    member(ward)
    client = browser(ward)
    for place in ELSEWHERE:
        assert local(place) == "/", place
        asked = client.get("/sign-in", params={"next": place})
        assert asked.status_code == 200, place
        assert 'name="next" value="/"' in asked.text, place
        answer = enter(client, next=place)
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), place
        assert len(answer.headers.get_list("set-cookie")) == 1, place
        token = re.search(r'data-csrf="(\w+)"', client.get("/").text)
        assert token is not None
        answer = client.post("/lock", data={"csrf": token[1], "next": place})
        assert answer.headers["location"] == "/locked?next=%2F", place
        answer = client.post("/locked", data={"password": PASSWORD, "next": place})
        assert answer.headers["location"] == "/", place


def test_a_place_of_ours_is_kept(ward: Ward) -> None:
    member(ward)
    for place in ("/", "/studies/2.25.1", "/?q=a&urgency=STAT", "/audit?who=dr+one", "/#x"):
        assert enter(browser(ward), next=place).headers["location"] == place


# The idle lock


def test_an_idle_session_shows_nothing_until_the_password_is_given_and_keeps_its_place(ward: Ward) -> None:
    member(ward)
    ward.study(1, read(PNEUMOTHORAX))
    client = browser(ward)
    enter(client)
    place = "/?q=PHANTOM&urgency=STAT"
    assert "PHANTOM" in client.get(place).text
    ward.now += timedelta(minutes=31)
    answer = client.get(place)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/locked?next={quote(place, safe='')}")
    locked = client.get(answer.headers["location"]).text
    assert "Locked" in locked
    assert "dr one" in locked
    assert "2.25.1" not in locked
    assert unescape(re.search(r'name="next" value="([^"]*)"', locked)[1]) == place  # type: ignore[index]
    assert client.post("/locked", data={"password": "no", "next": place}).status_code == 401
    assert client.get(place).status_code == 303
    before = client.cookies["hilum"]
    answer = client.post("/locked", data={"password": PASSWORD, "next": place})
    assert (answer.status_code, answer.headers["location"]) == (303, place)
    assert client.cookies["hilum"] != before
    assert client.get(place).status_code == 200


def test_locked_by_hand_it_keeps_its_place(ward: Ward) -> None:
    member(ward)
    client = browser(ward)
    enter(client)
    page = client.get("/?q=a&urgency=STAT").text
    form = dict(re.findall(r'name="(csrf|next)" value="([^"]*)"', page.split('action="/lock"')[1].split("</form>")[0]))
    form["next"] = unescape(form["next"])
    assert form["next"] == "/?q=a&urgency=STAT"
    answer = client.post("/lock", data=form)
    assert answer.headers["location"] == "/locked?next=%2F%3Fq%3Da%26urgency%3DSTAT"
    assert client.get("/").headers["location"] == "/locked?next=%2F"
    assert client.get("/api/v1/worklist").status_code == 401


def test_a_page_that_refreshes_itself_is_locked_all_the_same(ward: Ward) -> None:
    """The list changes all day; that nobody touches it counts."""
    member(ward)
    client = browser(ward)
    enter(client)
    for _ in range(6):
        assert client.get("/", headers={"X-Again": "1"}).status_code == 200
        ward.now += timedelta(minutes=5)
    assert client.get("/still-in", headers={"X-Again": "1"}).status_code == 204
    ward.now += timedelta(minutes=1)
    assert client.get("/still-in", headers={"X-Again": "1"}).status_code == 401
    assert client.get("/", headers={"X-Again": "1"}).status_code == 401, "its script asks for the door"
    assert client.get("/").headers["location"] == "/locked?next=%2F"


def test_the_lock_of_a_session_that_is_open_or_over_leads_on(ward: Ward) -> None:
    member(ward)
    client = browser(ward)
    enter(client)
    assert client.get("/locked?next=/second-look").headers["location"] == "/second-look"
    ward.now += timedelta(hours=14, minutes=1)
    for answer in (client.get("/locked?next=/audit"), client.post("/locked", data={"password": "x", "next": "/audit"})):
        assert answer.headers["location"] == "/sign-in?next=%2Faudit"


def test_wrong_passwords_at_the_lock_count_too(ward: Ward) -> None:
    member(ward)
    client = browser(ward)
    enter(client)
    ward.now += timedelta(minutes=31)
    for _ in range(6):
        assert client.post("/locked", data={"password": "no"}).status_code == 401
    assert client.post("/locked", data={"password": PASSWORD}).status_code == 401
    ward.now += timedelta(minutes=1, seconds=1)
    assert client.post("/locked", data={"password": PASSWORD}).status_code == 303


# The first link


def invited(ward: Ward, name: str = "dr one") -> str:
    account = ward.people.named(name)
    person = account.id if account else ward.people.add(name, Role.RADIOLOGIST, ward.now).id
    secret = new_secret()
    ward.people.invite(person, digest(secret), ward.now + timedelta(days=3))
    return f"/welcome/{secret}"


def test_a_link_chooses_a_password_once(ward: Ward) -> None:
    link, client = invited(ward), browser(ward)
    page = client.get(link)
    assert page.status_code == 200
    assert "dr one" in page.text
    assert page.headers["Referrer-Policy"] == "no-referrer"
    answer = client.post(link, data={"password": PASSWORD, "again": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/").status_code == 200
    assert [deed.action for deed in deeds(ward)] == ["signed in", "chose a password"]
    for again in (client.get(link), client.post(link, data={"password": PASSWORD, "again": PASSWORD})):
        assert again.status_code == 404
        assert "was used, or is too old" in again.text
    assert enter(browser(ward)).status_code == 303


def test_a_link_grows_old(ward: Ward) -> None:
    link = invited(ward)
    ward.now += timedelta(days=3)
    assert browser(ward).get(link).status_code == 404
    assert browser(ward).get("/welcome/none").status_code == 404


@pytest.mark.parametrize(
    ("password", "again", "fault"),
    [
        ("short", "short", "at least 12"),
        ("x" * 257, "x" * 257, "at most 256"),
        ("abcabcabcabcabc", "abcabcabcabcabc", "repeats the same few"),
        ("ABCabcABCabcABC", "ABCabcABCabcABC", "repeats the same few"),
        ("the word is hilum here", "the word is hilum here", "neither the name nor"),
        ("Reader knows it all", "Reader knows it all", "neither the name nor"),
        (PASSWORD, PASSWORD + "x", "are not the same"),
        (PASSWORD, "", "are not the same"),
    ],
)
def test_a_password_that_is_none_is_refused_and_the_link_stays(
    ward: Ward, password: str, again: str, fault: str
) -> None:
    link, client = invited(ward, "Dr Reader"), browser(ward)
    answer = client.post(link, data={"password": password, "again": again})
    assert answer.status_code == 422
    assert fault in answer.text
    assert password not in answer.text
    assert client.get(link).status_code == 200
    assert client.get("/").status_code == 303


def test_a_short_word_of_a_name_forbids_nothing() -> None:
    assert passwords.fault("drive the old line home", "Dr Li") == ""


def test_the_same_letters_typed_otherwise_are_the_same_password() -> None:
    assert passwords.is_right("Ein sch\u00f6ner Morgen", passwords.hashed("Ein scho\u0308ner Morgen"))
    assert not passwords.is_right("Ein schoner Morgen", passwords.hashed("Ein sch\u00f6ner Morgen"))


def test_no_password_is_right_by_its_beginning() -> None:
    longest = "".join(chr(33 + n % 90) for n in range(passwords.LONGEST))
    assert passwords.is_right(longest, passwords.hashed(longest))
    assert not passwords.is_right(longest + "x", passwords.hashed(longest))


def test_nobody_s_password_opens_nothing() -> None:
    assert not passwords.is_right("nobody has this password", None)
    assert not passwords.is_right("", None)
    assert not passwords.is_right("x", "no hash")


def test_a_busy_link_can_be_used_again(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    link, client = invited(ward), browser(ward)

    def busy(_: str) -> str:
        raise passwords.Busy

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "hashed", busy)
        answer = client.post(link, data={"password": PASSWORD, "again": PASSWORD})
        assert answer.status_code == 422
        assert "try again in a few seconds" in answer.text
    assert client.post(link, data={"password": PASSWORD, "again": PASSWORD}).status_code == 303


# Length


def test_what_is_too_long_is_not_taken_in(ward: Ward) -> None:
    client = browser(ward)
    assert client.post("/sign-in", content=b"name=" + b"x" * (1 << 20)).status_code == 413

    def endless() -> object:
        for _ in range(100):
            yield b"name=" + b"x" * 65536

    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/sign-in", content=endless(), headers=kind).status_code == 413  # type: ignore[arg-type]
    assert client.post("/sign-in", headers={"Content-Length": "-1"}).status_code == 413


# The administrator's page of people


def test_people_are_invited_changed_and_shut_out_and_all_of_it_is_noted(ward: Ward) -> None:
    client = ward.client(Role.ADMINISTRATOR, "keeper")
    answer = client.post("/people", data={"name": "  dr   new ", "role": "radiologist"})
    link = re.search(r"http://localhost:8080(/welcome/[\w-]{43})", answer.text)
    assert link is not None
    assert browser(ward).get(link[1]).status_code == 200
    person = ward.people.named("dr new")
    assert person is not None
    assert link[1] not in client.get("/people").text, "shown once"
    assert "invited" in client.get("/people").text
    again = client.post(f"/people/{person.id}/invite")
    other = re.search(r"(/welcome/[\w-]{43})", again.text)
    assert other is not None
    assert browser(ward).get(link[1]).status_code == 404
    assert client.post(f"/people/{person.id}", data={"role": "auditor"}).status_code == 303
    assert client.post(f"/people/{person.id}", data={"disabled": "true"}).status_code == 303
    assert browser(ward).get(other[1]).status_code == 404
    assert client.post(f"/people/{person.id}/invite").status_code == 404
    assert client.post(f"/people/{person.id}", data={"disabled": "true"}).status_code == 303, "once more is no fault"
    assert client.post(f"/people/{person.id}", data={"disabled": "false"}).status_code == 303
    assert [(deed.action, deed.detail.get("person")) for deed in deeds(ward, who="keeper")] == [
        ("let in again", "dr new"),
        ("shut out", "dr new"),
        ("changed a role", "dr new"),
        ("invited", "dr new"),
        ("invited", "dr new"),
    ]
    assert link[1].rpartition("/")[2] not in str(deeds(ward))


def test_the_page_refuses_in_words(ward: Ward) -> None:
    client = ward.client(Role.ADMINISTRATOR, "keeper")
    keeper = ward.people.named("keeper")
    assert keeper is not None
    for path, data, code, words in (
        ("/people", {"name": "KEEPER", "role": "auditor"}, 422, "is there already"),
        ("/people", {"name": "\u202e", "role": "auditor"}, 422, "1 to 100 printable"),
        ("/people", {"name": "one", "role": "king"}, 422, "not understood"),
        (f"/people/{keeper.id}", {"role": "auditor"}, 409, "last administrator"),
        (f"/people/{keeper.id}", {"disabled": "true"}, 409, "last administrator"),
        ("/people/999", {"role": "auditor"}, 404, "no such person"),
        ("/people/999/invite", {}, 404, "no such person"),
        ("/keys", {"name": "", "role": "auditor"}, 422, ""),
        ("/keys", {"name": "\0", "role": "auditor"}, 422, "say who uses it"),
        ("/keys/999/revoke", {}, 404, "no such key"),
    ):
        answer = client.post(path, data=data)
        assert answer.status_code == code, (path, data, answer.text)
        assert words.lower() in answer.text.lower()


@pytest.mark.parametrize("number", ["-1", "x", str(2**63), str(10**40)])
def test_a_number_that_cannot_be_is_refused(ward: Ward, number: str) -> None:
    client = ward.client()
    for path in (f"/people/{number}", f"/people/{number}/invite", f"/keys/{number}/revoke"):
        assert client.post(path).status_code == 422
    assert client.get(f"/audit?before={number}").status_code == 422


def test_a_key_is_shown_once_and_revoked(ward: Ward) -> None:
    client = ward.client(Role.ADMINISTRATOR, "keeper")
    answer = client.post("/keys", data={"name": "the RIS", "role": "auditor", "days": "30"})
    found = re.search(r"hil_[\w-]{43}", answer.text)
    assert found is not None
    assert found[0] not in client.get("/people").text
    program = browser(ward)
    program.headers["Authorization"] = f"Bearer {found[0]}"
    assert program.get("/api/v1/worklist").status_code == 200
    (token,) = ward.people.tokens()
    assert (token.name, token.created_by, token.expires_at) == ("the RIS", "keeper", ward.now + timedelta(days=30))
    assert client.post(f"/keys/{token.id}/revoke").status_code == 303
    assert program.get("/api/v1/worklist").status_code == 401
    client.post("/keys", data={"name": "for ever", "role": "auditor", "days": "0"})
    assert ward.people.tokens()[0].expires_at is None
    assert [deed.action for deed in deeds(ward, who="keeper")] == ["made a key", "revoked a key", "made a key"]
    assert found[0] not in str(deeds(ward))


def test_the_same_by_the_api(ward: Ward) -> None:
    client = ward.client(Role.ADMINISTRATOR, "keeper", rules=Rules(url="https://hilum.example"))
    made = client.post("/api/v1/people", json={"name": " dr  new ", "role": "radiologist"})
    assert made.status_code == 201
    new = made.json()
    assert (new["name"], new["role"]) == ("dr new", "radiologist")
    assert new["link"].startswith("https://hilum.example/welcome/")
    secret = new["link"].rpartition("/")[2]
    assert ward.people.invited(digest(secret), ward.now) is not None
    assert client.post("/api/v1/people", json={"name": "DR NEW", "role": "auditor"}).status_code == 422
    again = client.post(f"/api/v1/people/{new['id']}/invite").json()["link"]
    assert again != new["link"]
    assert ward.people.invited(digest(secret), ward.now) is None
    changed = client.post(f"/api/v1/people/{new['id']}", json={"role": "auditor", "disabled": True}).json()
    assert (changed["role"], changed["disabled"]) == ("auditor", True)
    assert client.post(f"/api/v1/people/{new['id']}/invite").status_code == 404
    keeper = ward.people.named("keeper")
    assert keeper is not None
    assert client.post(f"/api/v1/people/{keeper.id}", json={"role": "auditor"}).status_code == 409
    assert [person["name"] for person in client.get("/api/v1/people").json()] == ["dr new", "keeper"]
    key = client.post("/api/v1/keys", json={"name": "the RIS", "role": "auditor", "days": 0}).json()
    assert ward.people.by_token(digest(key["key"]), ward.now) is not None
    assert client.post(f"/api/v1/keys/{key['id']}/revoke").status_code == 200
    (listed,) = client.get("/api/v1/keys").json()
    assert (listed["name"], listed["revoked"]) == ("the RIS", True)
    trail = client.get("/api/v1/audit", params={"who": "keeper", "limit": 3}).json()
    assert [deed["action"] for deed in trail] == ["revoked a key", "made a key", "shut out"]
    earlier = client.get("/api/v1/audit", params={"before": trail[-1]["number"]}).json()
    assert [deed["action"] for deed in earlier] == ["changed a role", "invited", "invited"]
    for told in (secret, again, key["key"]):
        assert told not in str(client.get("/api/v1/audit").json())


def test_an_auditor_sees_people_and_no_buttons(ward: Ward) -> None:
    member(ward)
    page = ward.client(Role.AUDITOR, "auditor one").get("/people").text
    assert "dr one" in page
    assert re.findall(r'action="([^"]*)"', page) == ["/lock", "/sign-out"]


# The audit trail


def test_every_look_at_a_study_is_in_the_trail_but_not_its_refreshing(ward: Ward) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    client = ward.client(Role.RADIOLOGIST, "dr one")
    for _ in range(3):
        client.get("/studies/2.25.1", headers={"X-Again": "1"})
    assert [(d.who, d.action, d.study_uid) for d in deeds(ward)] == [("dr one", "looked", "2.25.1")]
    ward.now += timedelta(minutes=11)
    client.get("/studies/2.25.1")
    client.get("/api/v1/studies/2.25.1")
    ward.client(Role.AUDITOR, "auditor one").get("/studies/2.25.1")
    assert [d.who for d in deeds(ward, action="looked")] == ["auditor one", "dr one", "dr one"]
    assert "PHANTOM" not in str(deeds(ward))


def test_the_trail_is_read_page_by_page_and_filtered(ward: Ward) -> None:
    audit = Audit(ward.database)
    for number in range(250):
        audit.note(f"dr {number % 2}", f"deed {number}", ward.now, study_uid="2.25.1")
    client = ward.client(Role.AUDITOR)
    seen: list[str] = []
    path: str | None = "/audit?who=dr+1&study=2.25.1"
    while path:
        page = client.get(path).text
        seen += re.findall(r"<td>(deed \d+)</td>", page)
        later = re.search(r'href="([^"]*)" rel="next"', page)
        path = unescape(later[1]) if later else None
    assert seen == [f"deed {n}" for n in range(249, -1, -2)]
    assert "Nothing of that." in client.get("/audit?who=nobody+else").text


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "{{ 7 * 7 }}",
    "</title></textarea>",
    "&lt;b&gt;",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_stay_text_on_every_page_of_the_door(ward: Ward, hostile: str) -> None:
    keeper = ward.client(Role.ADMINISTRATOR, f"keeper {hostile}")
    person = member(ward, hostile)
    ward.study(1, read(PNEUMOTHORAX))
    reader = ward.client(Role.RADIOLOGIST, hostile)
    reader.post("/studies/2.25.1/claim")
    reader.post("/views", data={"name": hostile[:40], "query": hostile})
    link = invited(ward, hostile)
    keyed = keeper.post("/keys", data={"name": hostile, "role": "auditor"})
    bearing = {"detail": {hostile: hostile}, "address": hostile}
    Audit(ward.database).note(hostile, hostile, ward.now, study_uid=hostile, **bearing)  # type: ignore[arg-type]
    stranger = browser(ward)
    idle = ward.client(Role.RADIOLOGIST, hostile)
    idle.post("/lock")
    pages = {
        "worklist": reader.get("/"),
        "another's worklist": keeper.get("/"),
        "study": keeper.get("/studies/2.25.1"),
        "people": keeper.get("/people"),
        "invited": keeper.post(f"/people/{person.id}/invite"),
        "taken": keeper.post("/people", data={"name": hostile, "role": "auditor"}),
        "keyed": keyed,
        "audit": keeper.get("/audit"),
        "audit filtered": keeper.get("/audit", params={"who": hostile, "action": hostile, "study": hostile}),
        "sign-in": stranger.get("/sign-in", params={"next": "/" + hostile}),
        "sign-in again": enter(stranger, hostile, "no"),
        "locked": idle.get("/locked", params={"next": "/" + hostile}),
        "not found": keeper.get("/" + quote(hostile, safe="")),
        "not understood": keeper.post("/people", data={"name": "x", "role": hostile}),
    }
    link = invited(ward, hostile)
    pages["welcome"] = stranger.get(link)
    pages["welcome again"] = stranger.post(link, data={"password": hostile, "again": ""})
    for name, answer in pages.items():
        assert answer.status_code not in {303, 500, 503}, name
        page = Words(answer.text)
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"img", "b", "textarea"}, name
        scripts = [attributes for tag, attributes in page.elements if tag == "script"]
        assert all(script.keys() == {"type", "src"} for script in scripts), name
        assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes), name
        assert answer.text.count("</title>") == 1, name
    for name in ("people", "audit", "welcome", "taken", "keyed", "invited"):
        assert " ".join(hostile.split()) in Words(pages[name].text).text, f"{name} does not show it as it is"
