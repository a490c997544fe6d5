#!/usr/bin/env python3
"""Reads a sealed state folder by docs/store-format.md alone: no code of ours, nothing but Python's standard library.

    read_store.py STATE_DIR [KEY_FILE]      prints {"kind key": base64 of the value, ...}

The key is the machine's, or that of KEY_FILE.
"""
import base64, hashlib, hmac, json, sqlite3, struct, sys
from pathlib import Path

# AES-256, the encrypting half (FIPS 197).
def make_sbox():
    sbox, p, q = [0] * 256, 1, 1
    while True:
        p ^= (p << 1) & 0xFF ^ (0x1B if p & 0x80 else 0)
        q ^= q << 1; q ^= q << 2; q ^= q << 4; q &= 0xFF
        if q & 0x80: q ^= 0x09
        x = q ^ (q << 1 | q >> 7) ^ (q << 2 | q >> 6) ^ (q << 3 | q >> 5) ^ (q << 4 | q >> 4)
        sbox[p] = (x ^ 0x63) & 0xFF
        if p == 1: break
    sbox[0] = 0x63
    return sbox

SBOX = make_sbox()
double = lambda b: (b << 1) & 0xFF ^ (0x1B if b & 0x80 else 0)

class Aes:
    def __init__(self, key):
        words, rcon = [key[i:i + 4] for i in range(0, 32, 4)], 1
        for i in range(8, 60):
            word = words[-1]
            if i % 8 == 0:
                word = bytes([SBOX[word[1]] ^ rcon, SBOX[word[2]], SBOX[word[3]], SBOX[word[0]]]); rcon = double(rcon)
            elif i % 8 == 4:
                word = bytes(SBOX[b] for b in word)
            words.append(bytes(a ^ b for a, b in zip(words[i - 8], word)))
        self.rounds = [b"".join(words[i:i + 4]) for i in range(0, 60, 4)]

    def block(self, block):
        state = bytes(a ^ b for a, b in zip(block, self.rounds[0]))
        for number in range(1, 15):
            state = bytes(SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16))
            if number < 14:
                mixed = []
                for c in range(0, 16, 4):
                    a = state[c:c + 4]
                    mixed += [double(a[i]) ^ double(a[(i + 1) % 4]) ^ a[(i + 1) % 4] ^ a[(i + 2) % 4] ^ a[(i + 3) % 4] for i in range(4)]
                state = bytes(mixed)
            state = bytes(a ^ b for a, b in zip(state, self.rounds[number]))
        return state

# AES-GCM (NIST SP 800-38D) with a nonce of 12 bytes.
def gcm_open(key, nonce, about, ciphertext, tag):
    aes = Aes(key)
    h = int.from_bytes(aes.block(bytes(16)), "big")
    def times_h(x):
        z, v = 0, h
        for bit in range(127, -1, -1):
            if x >> bit & 1: z ^= v
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
        return z
    y = 0
    pad = lambda b: b + bytes(-len(b) % 16)
    blocks = pad(about) + pad(ciphertext) + struct.pack(">QQ", 8 * len(about), 8 * len(ciphertext))
    for i in range(0, len(blocks), 16):
        y = times_h(y ^ int.from_bytes(blocks[i:i + 16], "big"))
    stream = lambda counter: aes.block(nonce + struct.pack(">I", counter))
    if bytes(a ^ b for a, b in zip(y.to_bytes(16, "big"), stream(1))) != tag:
        raise SystemExit("a message does not open")
    key_stream = b"".join(stream(2 + i) for i in range((len(ciphertext) + 15) // 16))
    return bytes(a ^ b for a, b in zip(ciphertext, key_stream))

def open_message(key, about, message):
    assert message[0] == 1, "format"
    nonce, ciphertext, tag = message[1:25], message[25:-16], message[-16:]
    aes = Aes(key)
    l = int.from_bytes(aes.block(bytes(16)), "big")
    k1 = ((l << 1) & (1 << 128) - 1 ^ (0x87 if l >> 127 else 0)).to_bytes(16, "big")
    half = lambda n: aes.block(bytes(a ^ b for a, b in zip(bytes([0, n, 0x58, 0]) + nonce[:12], k1)))
    return gcm_open(half(1) + half(2), nonce[12:], about, ciphertext, tag)

part = lambda x: struct.pack(">I", len(x)) + x
subkey = lambda key, label: hmac.digest(key, label + b"\x01", "sha256")

def about(store, epoch, purpose, kind=b"", key=b""):
    return b"vambrace\0\x01" + store + struct.pack(">I", epoch) + part(purpose) + part(kind) + part(key)

def main(folder, key_file=None):
    file = sqlite3.connect(f"file:{folder}/state.sqlite?mode=ro", uri=True)
    header, ledger = file.execute("SELECT header, ledger FROM seal").fetchone()
    assert header[:5] == b"VMBS\x01" and len(header) == 111
    source, log_n, r, p, has_host_id = header[5:10]
    store, epoch, key_id = header[10:26], int.from_bytes(header[26:30], "big"), header[30:38]
    if source == 1:
        salt = (folder / "salt").read_bytes()
        host_id = Path("/etc/machine-id").read_bytes().strip().lower() if has_host_id else b""
        wrapping = hashlib.scrypt(b"vambrace machine key\0" + host_id, salt=salt, n=1 << log_n, r=r, p=p, dklen=32, maxmem=1 << 28)
        assert key_id == hashlib.sha256(b"vambrace salt id\0" + salt).digest()[:8]
    else:
        key = Path(key_file).read_bytes()
        key = key if len(key) == 32 else bytes.fromhex(key.decode().strip())
        wrapping = subkey(key, b"vambrace key-encryption key")
        assert key_id == subkey(key, b"vambrace key id")[:8]
    data = open_message(wrapping, header[:38], header[38:])
    content = open_message(subkey(data, b"vambrace ledger"), about(store, epoch, b"ledger"), ledger)
    generation, count, total, counter_key = *struct.unpack(">QQ", content[:16]), content[16:48], content[48:]
    found, rows, digest_key = {}, 0, subkey(data, b"vambrace rows")
    for kind, key, value in file.execute("SELECT kind, key, value FROM record"):
        where = about(store, epoch, b"record", kind.encode(), key.encode())
        found[f"{kind} {key}"] = base64.b64encode(open_message(subkey(data, b"vambrace records"), where, value)).decode()
        digest = hmac.digest(digest_key, where + value[1:25] + value[-16:], "sha256")
        total = bytes(a ^ b for a, b in zip(total, digest))
        rows += 1
    assert rows == count and total == bytes(32), "the rows are not those of the ledger"
    counter = (folder / "counter").read_bytes()
    assert counter[:4] == b"VMBC"
    seen = open_message(counter_key, about(store, 0, b"counter"), counter[4:])
    assert int.from_bytes(seen, "big") <= generation, "an older copy"
    print(json.dumps(found))

main(Path(sys.argv[1]), *sys.argv[2:3])
