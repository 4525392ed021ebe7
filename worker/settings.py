"""Configuration: one TOML file, environment over it (`HILUM_DICOM__PORT=11113`), read once into a frozen tree.

The only module that looks at the environment. Every fault is reported at once, each with its key.
"""

from __future__ import annotations

import os
import re
import tomllib
from datetime import time
from ipaddress import ip_network
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import re2  # type: ignore[import-untyped]
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from schemas.decision import Policy, Rule, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS, Label
from schemas.gate import GateRules
from schemas.outcome import Audience
from schemas.person import Role

PREFIX: Final = "HILUM_"  # of environment variables
EVERY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  to recognise it


def _ae_title(value: str) -> str:
    # PS3.5 6.2, VR AE: 16 characters at most, no backslash, no control characters, not only spaces.
    value = value.strip()
    if not value or len(value) > 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters, none of them a backslash")
    return value


def _urgency(value: object) -> object:
    if isinstance(value, str) and value in Urgency.__members__:
        return Urgency[value]
    if isinstance(value, Urgency):
        return value
    raise ValueError(f"one of {', '.join(u.name for u in reversed(Urgency))}")


def _network(value: str) -> str:
    ip_network(value, strict=False)  # its ValueError names the fault
    return value


def _hours(value: object) -> object:
    """ "22:00-06:30" as two times; the configuration is the only one who writes it so."""
    if not isinstance(value, str):
        return value
    start, dash, until = value.partition("-")
    try:
        hours = (time.fromisoformat(start.strip()), time.fromisoformat(until.strip()))
    except ValueError:
        dash = ""
    if not dash or hours[0] == hours[1]:
        raise ValueError('two local times, such as "22:00-06:30"')
    return hours


def _url(value: str) -> str:
    try:
        parsed = urlsplit(value)
        plain = parsed.port is None or parsed.port > 0  # a ValueError, where it is none
    except ValueError:
        plain = False
    if not plain or parsed.scheme not in {"http", "https"} or not parsed.hostname or parsed.username is not None:
        raise ValueError("an http or https URL without user and password")
    if not re.fullmatch(r"[!-~]+", value) or parsed.fragment:
        raise ValueError("a URL of printable ASCII characters without a fragment")
    return value


def _viewer_url(value: str) -> str:
    """A template of a link to a study; empty: there is none."""
    filled = re.sub(r"\{(?:study_uid|accession_number|patient_id)\}", "1", value)
    if "{" in filled or "}" in filled:
        raise ValueError("its placeholders are {study_uid}, {accession_number} and {patient_id}")
    if value:
        page, _, place = filled.partition("#")
        _url(page)
        if not re.fullmatch(r"[!-~]*", place):
            raise ValueError("a URL of printable ASCII characters")
        if "{" in "".join(urlsplit(value)[:2]):
            raise ValueError("placeholders stand behind the host's name")
    return value


def _origin(value: str) -> str:
    parsed = urlsplit(value)
    if parsed.path not in {"", "/"} or parsed.query:
        raise ValueError("only scheme, host and port: the pages are at its root")
    return value.rstrip("/")


def _secret(value: object) -> object:
    """A secret, or "file:PATH" to one, such as an orchestrator lays down."""
    if isinstance(value, str) and value.startswith("file:"):
        try:
            value = Path(value.removeprefix("file:")).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{value}: cannot be read") from error
    if value == "":
        raise ValueError("empty")
    return value


def _phrase(value: str) -> str:
    """A regular expression whose search never takes longer than the text is long (RE2 has no backtracking)."""
    if not value.strip():
        raise ValueError("empty: it would be found in every report")
    try:
        phrase(value)
    except re2.error as error:
        words = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(f"no regular expression of RE2: {words}") from error
    return value


def phrase(value: str) -> Any:
    """What `[hl7]` looks for in a report, compiled. Upper and lower case are the same."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    return re2.compile(value, options)


def _bearer(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[A-Za-z0-9\-._~+/]+=*", value.get_secret_value()):  # RFC 6750 2.1
        raise ValueError("no bearer token: letters, digits and -._~+/")
    return value


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[!-~]+@[!-~]+", value) or re.search(r'[<>,;"()\\]', value):
        raise ValueError("an address of the form name@host, in ASCII and without a display name")
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_network)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
UrgencyName = Annotated[Urgency, BeforeValidator(_urgency)]
Port = Annotated[int, Field(ge=0, le=65535)]
Hours = Annotated[tuple[time, time], BeforeValidator(_hours)]
Url = Annotated[str, AfterValidator(_url)]
ViewerUrl = Annotated[str, AfterValidator(_viewer_url)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
BearerToken = Annotated[Secret, AfterValidator(_bearer)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]


Phrase = Annotated[str, AfterValidator(_phrase)]
AccessionIn = Literal["IPC-1", "OBR-18", "OBR-3", "ORC-3", "OBR-2", "ORC-2"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Caller(_Section):
    """One line of the allow-list: a calling AE title, an address or network (CIDR), or both."""

    ae_title: str = "*"
    address: Network = "0.0.0.0/0"


class LocalAE(_Section):
    """A further AE title that the same port answers to, with its own settings."""

    ae_title: AETitle
    order_urgency: UrgencyName = Urgency.ROUTINE  # films that arrive here are read no later than this
    accept: list[Caller] = []  # overrides [dicom] accept when not empty


class Dicom(_Section):
    """The listener."""

    ae_title: AETitle = "HILUM"
    host: str = "127.0.0.1"
    port: Port = 11112
    also: list[LocalAE] = []
    accept: list[Caller] = []  # empty: whoever calls one of our AE titles
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 100
    max_pdu: Annotated[int, Field(ge=4096, le=1 << 20)] = 128 * 1024
    network_timeout: Seconds = 60.0
    acse_timeout: Seconds = 30.0
    dimse_timeout: Seconds = 30.0


def _finding(value: Label) -> Label:
    if value is Label.NO_FINDING:
        raise ValueError(f'"No Finding" is no finding; choose among {", ".join(FINDINGS)}')
    return value


class FindingCode(_Section):
    """The code by which the site's reports name a finding."""

    code: Annotated[str, Field(min_length=1)]
    finding: Annotated[Label, AfterValidator(_finding)]


class Hl7(_Section):
    """What the hospital says of orders, patients and reports: HL7 v2 over MLLP."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 2576
    accept: list[Network] = []  # addresses and networks; empty: whoever calls
    max_connections: Annotated[int, Field(ge=1, le=1000)] = 32  # half of them from one address
    # What is longer is refused. Peers can fill memory with max_connections of them: 512 MiB by these two, 900 MiB with
    # the one that is being understood, at the worst.
    keep_days: Annotated[float, Field(ge=0, le=36_500)] = 400.0  # orders and patients of whom nothing is said; 0: ever
    max_message_kib: Annotated[int, Field(ge=16, le=65_536)] = 16_384
    message_seconds: Seconds = 30.0  # for a message to come in whole
    idle_seconds: Seconds = 3600.0  # of silence between messages
    tls: bool = False
    certificate: Path | None = None
    key: Path | None = None
    ca_file: Path | None = None  # with it only callers whose certificate it signed come in
    processing_id: Literal["P", "T", "D"] = "P"  # MSH-11 of the messages that are taken
    accession_in: list[AccessionIn] = ["IPC-1", "OBR-18", "OBR-3", "ORC-3"]  # the first that is not empty
    positive: list[Phrase] = []  # in the text of a report: something was found
    negative: list[Phrase] = []
    codes: list[FindingCode] = []  # of findings in reports, besides SNOMED CT's

    @model_validator(mode="after")
    def _secure(self) -> Hl7:
        if self.tls and self.certificate is None:
            raise ValueError("tls needs certificate")
        return self


class Database(_Section):
    url: str = "sqlite:///var/hilum.db"


class SpoolSettings(_Section):
    path: Path = Path("var/spool")
    watermark_mib: Annotated[int, Field(ge=0)] = 1024  # refuse new films below this much free space
    keep_days: Annotated[float, Field(ge=0, le=36_500)] = 7.0  # after the study is final; 0 keeps for ever


def _provider(value: str) -> str:
    parsed = urlsplit(value)
    if parsed.scheme != "https" and parsed.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise ValueError("https: what it says lets people in")
    if parsed.query:
        raise ValueError("an issuer has no query")
    return value


class OpenId(_Section):
    """Signing in by the hospital's OpenID Connect provider, beside local accounts."""

    issuer: Annotated[Url, AfterValidator(_provider)]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: Secret
    roles: Annotated[dict[str, Role], Field(min_length=1)]  # by value of the claim; without one of them nobody comes in
    role_claim: str = "groups"  # "a.b": the claim b in the object a
    name_claim: str = "preferred_username"
    label: Annotated[str, Field(min_length=1, max_length=60)] = "OpenID Connect"  # "Sign in with …"
    scope: str = "openid profile"
    fresh: bool = True  # whoever signed in there longer ago than idle_minutes is asked again; needs auth_time
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _is_openid(self) -> OpenId:
        if "openid" not in self.scope.split():
            raise ValueError("scope needs openid")
        return self


class Web(_Section):
    host: str = "127.0.0.1"
    port: Port = 8080
    hosts: list[str] = []  # names besides loopback by which browsers ask for the page
    url: Annotated[Url, AfterValidator(_origin)] | None = None  # by which they reach it; default: host and port
    idle_minutes: Annotated[float, Field(gt=0, le=1440)] = 30.0  # then a session is locked, its place kept
    session_hours: Annotated[float, Field(gt=0, le=168)] = 14.0  # then it is over
    oidc: OpenId | None = None
    research: bool = False  # also activation maps and all probabilities: a reading aid, which is no triage device
    viewer_url: ViewerUrl = ""  # of the hospital's viewer, with {study_uid}, {accession_number}, {patient_id}


class WorklistSettings(_Section):
    """The order of the list; and what others may look at on the DICOM port: who may is decided by `[dicom] accept`."""

    mwl: bool = True  # Modality Worklist
    ups: bool = True  # Unified Procedure Steps, Pull and Query
    longest_wait_minutes: Annotated[float, Field(gt=0)] = 480.0  # then a study goes before all but STAT
    unopened_minutes: Annotated[float, Field(gt=0)] = 10.0  # a flag that nobody opened for so long stands out
    undo_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0  # for so long a reading can be undone


class ReportTo(_Section):
    """A modality that hears of Storage Commitment on an association of its own."""

    ae_title: AETitle
    host: str = "127.0.0.1"
    port: Port


class Commitment(_Section):
    """Storage Commitment for modalities. What hilum commits to it keeps for `[spool] keep_days`: it is no archive."""

    offered: bool = False
    report_to: list[ReportTo] = []  # whoever is not in it is told on the association that it asks on
    timeout: Seconds = 10.0


class Model(_Section):
    bundle: str = "starter"  # the first that reads; from then on the registry says which does
    runtime: Literal["auto", "tensorflow", "openvino"] = "auto"
    store: Path = Path("var/models")
    threads: Annotated[int, Field(ge=0)] = 0  # 0: as many as there are cores
    max_batch: Annotated[int, Field(ge=1, le=64)] = 8
    gather_ms: Annotated[float, Field(ge=0)] = 2.0
    two_people: bool = False  # whoever promotes a model is not who brought it into the shadow


class Reading(_Section):
    workers: Annotated[int, Field(ge=1)] = 3  # films in hand at once in this process
    lease_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    # Of a film that cannot be read: then it is set aside as failed. Five times as many where its readers died.
    attempts: Annotated[int, Field(ge=1)] = 3
    quiet_seconds: Seconds = 120.0  # then the study is final


class RuleSetting(_Section):
    urgency: UrgencyName
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["card"] = "card"


class PolicySettings(_Section):
    """`[policy.findings.Pneumothorax] urgency = "STAT"`; see `schemas.decision.Policy` for the defaults."""

    findings: dict[Label, RuleSetting] | None = None
    binary: RuleSetting | None = None
    on_disagreement: Literal["flag", "hold"] = "flag"
    budget: Annotated[float, Field(gt=0, le=10_000)] | None = None  # flags an hour

    @model_validator(mode="after")
    def _findings_only(self) -> PolicySettings:
        if self.findings and Label.NO_FINDING in self.findings:
            raise ValueError(f'"No Finding" is no finding; choose among {", ".join(FINDINGS)}')
        return self

    def policy(self) -> Policy:
        """The frozen table that the corridor decides by."""
        rules: dict[str, Any] = {}
        if self.findings is not None:
            rules["findings"] = {
                label: Rule(urgency=rule.urgency, threshold=rule.threshold) for label, rule in self.findings.items()
            }
        if self.binary is not None:
            rules["binary"] = Rule(urgency=self.binary.urgency, threshold=self.binary.threshold)
        return Policy(on_disagreement=self.on_disagreement, budget=self.budget, **rules)


class _Destination(_Section):
    """Who is told, and of which studies; a list that is empty lets everything through."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    when: Literal["analysed", "flagged"] = "flagged"
    urgency: UrgencyName = Urgency.ROUTINE  # at least
    called_ae: list[AETitle] = []
    modality: list[str] = []
    findings: list[Label] = []
    hours: Hours | None = None
    timeout: Seconds = 10.0

    def audience(self) -> Audience:
        """What of this decides which studies it hears of."""
        return Audience(
            name=self.name,
            when=self.when,
            keeps_tasks=self._keeps_tasks,
            urgency=self.urgency,
            called_ae=frozenset(self.called_ae),
            modality=frozenset(self.modality),
            findings=frozenset(map(str, self.findings)),
            hours=self.hours,
        )

    _keeps_tasks: ClassVar[bool] = False


class DicomDestination(_Destination):
    """A DICOM peer."""

    ae_title: AETitle
    host: str = "127.0.0.1"
    port: Port
    calling_ae_title: AETitle | None = None  # default: [dicom] ae_title


class SrDestination(DicomDestination):
    """Structured Report by C-STORE."""

    kind: Literal["dicom-sr"]
    commitment: bool = False  # ask for Storage Commitment; the flag is proven when it is granted


class ScDestination(DicomDestination):
    """A summary page as Secondary Capture by C-STORE."""

    kind: Literal["dicom-sc"]
    commitment: bool = False


class UpsDestination(DicomDestination):
    """A reading task at the hospital's Unified Procedure Step manager."""

    kind: Literal["dicom-ups"]
    _keeps_tasks = True


class Hl7Destination(_Destination):
    """HL7 v2 over MLLP; names of applications and facilities may be of the form `name^universal id^type`."""

    host: str = "127.0.0.1"
    port: Port
    tls: bool = False
    ca_file: Path | None = None  # who signed the receiver's certificate; default: the system's authorities
    certificate: Path | None = None  # our own, where the receiver wants to know who calls
    key: Path | None = None  # of the certificate; default: in the same file
    sending_application: str = "HILUM"  # MSH-3
    sending_facility: str = ""  # MSH-4
    receiving_application: str = ""  # MSH-5
    receiving_facility: str = ""  # MSH-6
    character_set: Literal["UNICODE UTF-8", "8859/1", "ASCII"] = "UNICODE UTF-8"  # MSH-18
    processing_id: Literal["P", "T", "D"] = "P"  # MSH-11
    priority_in: Literal["OBR-27", "TQ1-9", "both"] = "both"

    @model_validator(mode="after")
    def _certificates_are_of_use(self) -> Hl7Destination:
        if not self.tls and (self.ca_file or self.certificate or self.key):
            raise ValueError("ca_file, certificate and key need tls = true")
        if self.key and not self.certificate:
            raise ValueError("key needs certificate")
        return self


class OruDestination(Hl7Destination):
    """ORU^R01: the result."""

    kind: Literal["hl7-oru"]


class OrderDestination(Hl7Destination):
    """The order's priority, changed. Of the report whoever keeps the order knows first: he is not told of it."""

    kind: Literal["hl7-order"]
    message: Literal["OMI^O23", "ORM^O01"] = "OMI^O23"

    @model_validator(mode="after")
    def _has_a_place_for_priority(self) -> OrderDestination:
        if self.message == "ORM^O01" and self.priority_in == "TQ1-9":
            raise ValueError('ORM^O01 has no TQ1: choose priority_in = "OBR-27"')
        return self


class FhirDestination(_Destination):
    """FHIR R4: DiagnosticReport, Observations and a Task in one transaction."""

    kind: Literal["fhir"]
    url: Url  # of the server's base
    patient_system: str = ""  # URI of the hospital's patient numbers, as that server has it
    token: BearerToken | None = None  # or by OAuth 2 client credentials:
    token_url: Url | None = None
    client_id: str = ""
    client_secret: Secret | None = None
    scope: str = ""
    ca_file: Path | None = None
    _keeps_tasks = True

    @model_validator(mode="after")
    def _one_way_in(self) -> FhirDestination:
        if self.token is not None and self.token_url is not None:
            raise ValueError("token or token_url, not both")
        if self.token_url is not None and not (self.client_id and self.client_secret):
            raise ValueError("token_url needs client_id and client_secret")
        return self


class WebhookDestination(_Destination):
    """CloudEvents by HTTP POST, signed."""

    kind: Literal["webhook"]
    url: Url
    secret: Secret | None = None  # "whsec_<base64>", as Standard Webhooks has it; without it nothing is signed
    identify: bool = False  # whether the patient is named
    ca_file: Path | None = None


class Alarms(_Section):
    """Mail when a destination has not got its flags in time; without a host nobody is told."""

    after_seconds: Seconds = 300.0  # from the decision
    host: str = ""
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""  # without it nobody logs in
    password: Secret | None = None
    ca_file: Path | None = None  # who signed the mail server's certificate; default: the system's authorities
    sender: MailAddress | None = None
    recipients: list[MailAddress] = []
    state: Path = Path("var/alarms.json")  # what was told, so that a restart does not tell it twice

    @model_validator(mode="after")
    def _can_be_sent(self) -> Alarms:
        if self.host and not (self.sender and self.recipients):
            raise ValueError("host needs sender and recipients")
        if bool(self.username) != bool(self.password):
            raise ValueError("username and password belong together")
        if self.username and self.security == "none":
            raise ValueError('a password does not go out in the clear: security = "starttls" or "tls"')
        return self


class Watch(_Section):
    """What is watched, and when somebody is told."""

    behind_seconds: Seconds = 60.0  # a film that waits longer: the list says that hilum is behind
    drift_films: Annotated[int, Field(ge=50, le=100_000)] = 200  # of a scanner: the first make its baseline
    drift_days: Annotated[float, Field(ge=0.1, le=90)] = 7.0  # that are compared with it
    drift_scores: Annotated[float, Field(gt=0, le=10)] = 0.25  # population stability index
    drift_share: Annotated[float, Field(gt=0, le=1)] = 0.05  # of films, more than in the baseline
    drift_pauses: bool = False  # scores that are spread otherwise pause flags


class PaperDestination(_Destination):
    """What would be sent, written down."""

    kind: Literal["paper"]
    folder: Path = Path("var/paper")


Destination: TypeAlias = (
    SrDestination
    | ScDestination
    | UpsDestination
    | OruDestination
    | OrderDestination
    | FhirDestination
    | WebhookDestination
    | PaperDestination
)


def _same_address(one: str, other: str) -> bool:
    """Whether two hosts that are listened on have an address in common, as far as that shows without asking a DNS."""
    hosts = {"127.0.0.1" if host == "localhost" else host for host in (one, other)}
    return len(hosts) == 1 or bool(hosts & EVERY_ADDRESS)


class Settings(BaseSettings):
    """The whole tree. Paths are relative to the working directory."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        nested_model_default_partial_update=True,
    )

    dicom: Dicom = Dicom()
    hl7: Hl7 = Hl7()
    database: Database = Database()
    spool: SpoolSettings = SpoolSettings()
    web: Web = Web()
    worklist: WorklistSettings = WorklistSettings()
    commitment: Commitment = Commitment()
    model: Model = Model()
    gate: GateRules = GateRules()
    reading: Reading = Reading()
    policy: PolicySettings = PolicySettings()
    destinations: list[Annotated[Destination, Field(discriminator="kind")]] = []
    alarms: Alarms = Alarms()
    watch: Watch = Watch()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file: the file comes in as the init arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _names_are_unique(self) -> Settings:
        titles = [self.dicom.ae_title, *(ae.ae_title for ae in self.dicom.also)]
        names = [d.name for d in self.destinations]
        for what, values in (("dicom.also", titles), ("destinations", names)):
            twice = {v for v in values if values.count(v) > 1}
            if twice:
                raise ValueError(f"{what}: used twice: {', '.join(sorted(twice))}")
        return self

    @model_validator(mode="after")
    def _ports_are_apart(self) -> Settings:
        doors = self.doors().items()
        for (name, door), (other_name, other) in combinations(doors, 2):
            if door.port == other.port != 0 and _same_address(door.host, other.host):
                raise ValueError(f"{name}.port and {other_name}.port are both {door.port}: give one of them another")
        return self

    def doors(self) -> dict[str, Dicom | Web | Hl7]:
        """By its section, what listens in a process that has every role."""
        return {"dicom": self.dicom, "web": self.web, **({"hl7": self.hl7} if self.hl7.enabled else {})}


def load(path: Path | None) -> Settings:
    """Settings from the TOML file at `path` (or defaults) under the environment.

    Raises
    ------
    ConfigurationError
        The file cannot be read or parsed, or any value is wrong: one line per fault, each with its key.
    """
    try:
        values = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    unknown = sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).split("__")[0].lower() not in Settings.model_fields
    )
    if unknown:
        raise ConfigurationError(f"environment: no such section or key: {', '.join(unknown)}")
    try:
        return Settings(**values)
    except SettingsError as error:  # its message names the field, not the value
        raise ConfigurationError(f"environment: {error}; lists and tables are written in JSON") from error
    except ValidationError as error:
        lines = [f"  {'.'.join(str(p) for p in e['loc']) or 'settings'}: {e['msg']}" for e in error.errors()]
        source = path or "environment"
        raise ConfigurationError(f"{source}: {len(lines)} fault(s)\n" + "\n".join(lines)) from error
