import socket
import threading

import pytest

from tools.loopback import ask


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "closed connection"),
        (b"nonsense\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "IncompleteRead"),
    ],
)
def test_half_an_answer_is_no_answer(answer: bytes, text: str) -> None:
    """Whatever is wrong with a connection is an OSError, which every caller expects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(OSError, match=text):
            ask(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
