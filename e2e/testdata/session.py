"""One IMAP session as a Python program has it; what to do is JSON on standard input."""

import imaplib
import json
import ssl
import sys

want = json.load(sys.stdin)
context = ssl.create_default_context(cafile=want["ca"])
if want["starttls"]:
    box = imaplib.IMAP4("localhost", want["port"])
    box.starttls(context)
else:
    box = imaplib.IMAP4_SSL("localhost", want["port"], ssl_context=context)


def check(result):
    status, data = result
    assert status == "OK", (status, data)
    return data


check(box.login(want["name"], want["password"]))
folder = "Folder%d" % want["port"]
check(box.create(folder))
message = b"Subject: from Python\r\n\r\n" + b"\r\n".join(b"line %d" % i for i in range(5000)) + b"\r\n"
check(box.append(folder, r"(\Seen)", None, message))
check(box.select(folder))
assert check(box.search(None, "SEEN"))[0].split() == [b"1"]
fetched = check(box.fetch("1", "(BODY.PEEK[])"))
assert fetched[0][1] == message, "fetched another message than was stored"
check(box.store("1", "+FLAGS", r"(\Deleted)"))
check(box.expunge())
check(box.select("INBOX"))
subject = check(box.fetch("1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))[0][1]
assert want["name"].encode() in subject, "read somebody else's mail"
check(box.close())
assert box.logout()[0] == "BYE"
print("done")
