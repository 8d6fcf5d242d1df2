"""
Decrypts credentials for flysync: FLYSYNC_DECRYPT="python decrypt.py". The key is CREDENTIALS_KEY (32 bytes, base64).

What is stored is base64 of 12 bytes nonce, the ciphertext, and 16 bytes tag (AES-256-GCM). Needs `cryptography`.
"""

import base64
import json
import os
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

cipher = AESGCM(base64.b64decode(os.environ["CREDENTIALS_KEY"]))
values, failed = {}, {}
for name, text in json.load(sys.stdin)["values"].items():
    try:
        data = base64.b64decode(text)
        values[name] = cipher.decrypt(data[:12], data[12:], None).decode()
    except (InvalidTag, ValueError):
        failed[name] = "another key, or no such text"
json.dump({"values": values, "failed": failed}, sys.stdout)
