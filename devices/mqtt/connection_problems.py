"""Why an MQTT broker could not be reached, or refused a client: in words for people."""

from __future__ import annotations

import socket
import ssl

from paho.mqtt.reasoncodes import ReasonCode

#: The broker took the connection and said nothing until the time allowed was over.
NO_ANSWER = "it takes the connection and says nothing; is it an MQTT broker?"
#: The connection ended before CONNECT was answered.
CLOSED = "it does not answer as an MQTT broker does; mqtts:// for one with TLS?"
# TLS 1.3 ends the handshake for the client before the server has looked at its certificate.
CLOSED_WITHOUT_CERTIFICATE = (
    "it closes the connection after the TLS handshake: "
    "it wants a client certificate (--cert and --key), or is no MQTT broker"
)
CLOSED_WITH_CERTIFICATE = (
    "it closes the connection after the TLS handshake: "
    "it refuses the client certificate, or is no MQTT broker"
)
WANTS_CERTIFICATE = "it wants a client certificate (--cert and --key)"
REFUSES_CERTIFICATE = "it refuses the client certificate"


def connect_problem(problem: ReasonCode | BaseException) -> str:
    """Why a broker could not be reached or refused, in a few words for people, without its name.

    Args:
        problem: the reason code that ``on_connect`` was given, or what ``reconnect`` raised.
    """
    if isinstance(problem, ReasonCode):
        return _REFUSALS.get(problem.value, f"it refuses the client: {problem}")
    if isinstance(problem, ssl.SSLCertVerificationError):
        return _CERTIFICATES.get(
            problem.verify_code, f"its certificate is refused: {problem.verify_message}"
        )
    if isinstance(problem, ssl.SSLError):
        return _tls_problem(problem)
    if isinstance(problem, (socket.gaierror, UnicodeError)):
        return "its name is not known (is it spelt rightly, is there a network?)"
    if isinstance(problem, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    if isinstance(problem, TimeoutError):
        return "it does not answer in time"
    if isinstance(problem, ConnectionError):
        return "it ends the connection at once: no MQTT broker, or TLS on one side only"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror[0].lower() + problem.strerror[1:]
    return str(problem) or type(problem).__name__


def _tls_problem(problem: ssl.SSLError) -> str:
    reason = (problem.reason or "").upper()
    if isinstance(problem, ssl.SSLEOFError) or reason in (
        "WRONG_VERSION_NUMBER",
        "UNEXPECTED_EOF_WHILE_READING",
        "RECORD_LAYER_FAILURE",
        "PACKET_LENGTH_TOO_LONG",
    ):
        return "it does not speak TLS there; mqtt:// instead of mqtts://, or another port?"
    if "PROTOCOL_VERSION" in reason or reason in ("UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"):
        return "it speaks no TLS of version 1.2 or newer"
    if reason in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"):
        return WANTS_CERTIFICATE
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return REFUSES_CERTIFICATE
    return f"the TLS handshake failed: {reason.lower().replace('_', ' ') or problem}"


# Reason codes of MQTT 5, section 3.2.2.2; paho gives those of 3.1.1 as these.
_REFUSALS = {
    0x84: "it does not speak this version of MQTT",
    0x85: "it refuses the client identifier",
    0x86: "wrong user or password",
    0x87: "wrong user or password, or this user may not connect",
    0x88: "it is not available now",
    0x89: "it is busy",
    0x8A: "it has banned this client",
    0x8C: "it wants another way to authenticate",
    0x97: "its quota is used up",
    0x9F: "it takes no more connections at this rate",
}

# X509_V_ERR_… of OpenSSL.
_CERTIFICATES = {
    9: "its certificate is not valid yet; is the clock right?",
    10: "its certificate has expired",
    18: "its certificate is signed by itself, not by a certificate that is trusted (--ca)",
    19: "its certificate is signed by a CA that is not trusted (--ca)",
    20: "its certificate is signed by a CA that is not trusted (--ca)",
    21: "its certificate is signed by a CA that is not trusted (--ca)",
    23: "its certificate was revoked",
    62: "its certificate is for another host name",
    64: "its certificate is for another address",
}
