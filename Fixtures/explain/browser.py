"""Drives a headless Chromium over its debugging pipe, with nothing but Python's own library."""
import base64
import json
import os
import shutil
import subprocess
import tempfile


def program():
    """The browser of this machine; None if there is none."""
    return next(filter(None, map(shutil.which, ["chromium", "google-chrome", "chromium-browser"])), None)


class Browser:
    def __init__(self):
        self.profile = tempfile.TemporaryDirectory()
        # The browser reads commands from descriptor 3 and answers on 4; a shell puts them there.
        their_in, self.commands = os.pipe()
        self.answers, their_out = os.pipe()
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}', program(), "--headless=new", "--no-sandbox", "--disable-gpu",
             "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", "about:blank"],
            pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(their_in)
        os.close(their_out)
        self.number, self.buffer, self.session, self.errors = 0, b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")

    def message(self):
        while b"\0" not in self.buffer:
            part = os.read(self.answers, 1 << 16)
            assert part, "the browser ended"
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.hear(answer)

    def hear(self, event):
        """What goes wrong in the page, and what it wants to load, is an error of the test."""
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(event["params"])
        if event.get("method") == "Page.loadEventFired":
            self.is_loaded = True

    def open(self, address):
        self.is_loaded = False
        self.call("Page.navigate", url="about:blank")
        while not self.is_loaded:
            self.hear(self.message())
        self.is_loaded = False
        self.call("Page.resetNavigationHistory")  # with fifty entries, its most, Chromium's way back misses some
        self.call("Page.navigate", url=address)
        while not self.is_loaded:
            self.hear(self.message())

    def js(self, text):
        result = self.call("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, json.dumps(result["exceptionDetails"])[:800]
        return result["result"].get("value")

    def screen(self, width, height, *, is_dark=False, is_phone=False, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}])

    def press(self, key):
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=13 if key == "Enter" else 0, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def picture(self, file):
        """What the screen shows, as WebP."""
        data = self.call("Page.captureScreenshot", format="webp", quality=82)["data"]
        with open(file, "wb") as out:
            out.write(base64.b64decode(data))

    def close(self):
        self.call("Browser.close")
        self.process.wait()
        self.profile.cleanup()
