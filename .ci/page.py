"""Plays swaps on the page /local of the local stack, in Chromium, at the width of a desktop and of a phone. axe-core must find
nothing, in light and in dark.

Usage: page.py SIMSWAP [DIRECTORY], the path of the stack's binary, and a directory for screenshots.
"""

import re
import shutil
import sys

from axe_playwright_python.sync_playwright import Axe
from local_stack import local_stack, wait_for
from playwright.sync_api import expect, sync_playwright

# Milliseconds to wait for each condition, perhaps on a busy machine.
TIMEOUT = 60_000
WIDTHS = {"desktop": 1280, "phone": 360}
SCHEMES = ["light", "dark"]
CODE = "8E9!#"
# The test machine may have no GPU, no sandbox for browsers, and no network.
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"


def main(simswap, screenshots=None):
    with local_stack(simswap) as stack:
        try:
            url = check_greeting(stack.log)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS.split())
                for device, width in WIDTHS.items():
                    context = browser.new_context(viewport={"width": width, "height": 800})
                    context.set_default_timeout(TIMEOUT)
                    page = LocalPage(context.new_page(), url)
                    page.play()
                    for scheme in SCHEMES if screenshots else []:
                        page.tab.emulate_media(color_scheme=scheme)
                        page.tab.screenshot(path=f"{screenshots}/{device}-{scheme}.png", full_page=True)
                    print(f"{device}: passed", flush=True)
                    context.close()
                browser.close()
        except BaseException:
            print(f"--- {stack.log.name}\n{stack.log.read_text()}", file=sys.stderr)
            raise


def check_greeting(log):
    """Returns the URL of the page, which the stack prints. The whole greeting fits a terminal of 80 columns and 24 lines."""
    greeting = wait_for("the greeting is complete", lambda: (text := log.read_text()).endswith("/local/mail\n") and text)
    lines = sum(max(1, -(-len(line) // 80)) for line in greeting.splitlines())
    # One line is for the command, and one for the cursor.
    check(lines <= 22, f"the greeting takes {lines} lines")
    check(len(set(re.findall(r"eyJ\S+", greeting))) == greeting.count("eyJ0"), "the token is printed once")
    return re.search(r"in a browser: (\S+)", greeting)[1]


class LocalPage:
    """The page, as a person uses it: by what they read."""

    def __init__(self, tab, url):
        self.tab, self.faults = tab, []
        tab.on("pageerror", lambda error: self.faults.append(str(error)))
        tab.on("console", lambda message: self.faults.append(message.text) if "Content Security Policy" in message.text else None)
        tab.goto(url)
        self.swap_form = tab.locator("#swap")
        self.phone = tab.locator("#phone")
        self.newest = tab.locator("#swaps article").first

    def play(self):
        self.wrong_code()
        self.card()
        self.lost_mail()
        self.report()
        self.cancel_by_keyboard()
        self.other_caller()
        check(not self.faults, self.faults)

    def wrong_code(self):
        self.swap("06-12345601")
        self.expect_fact("delivery", "delivered")
        self.read_mail("anna@example.com")
        self.install("wrong")
        expect(self.phone.get_by_role("status")).to_contain_text("403")
        self.expect_fact("esim.wrongCodes", "1")
        self.check_accessibility()
        self.install(CODE)
        expect(self.phone.get_by_role("status")).to_contain_text("200")
        self.expect_status("DONE")

    def card(self):
        self.swap("06-12345602", kind="Card")
        self.expect_status("DONE")

    def lost_mail(self):
        self.swap("06-12345603", email="bounce@simulator.amazonses.com")
        self.expect_fact("delivery", "bounced")
        self.act("Resend…", {"E-mail address": "carla@example.com"})
        self.expect_fact("email", "carla@example.com")
        self.expect_fact("delivery", "delivered")
        self.read_mail("carla@example.com")
        old_code = self.phone.get_by_label("Activation code").input_value()
        self.act("Renew…", {"Confirmation code": "1234"})
        expect(self.newest.get_by_role("listitem").filter(has_text="mail 3").first).to_be_visible()
        self.install(CODE)
        expect(self.phone.get_by_role("status")).to_contain_text("404")
        self.read_mail("carla@example.com")
        check(self.phone.get_by_label("Activation code").input_value() != old_code, "the code is renewed")
        self.install("1234")
        self.expect_status("DONE")

    def report(self):
        self.swap("+4520123401")
        self.expect_fact("delivery", "delivered")
        self.act("Report installed…", {"Note": "it works"}, witness="customer", response="403")
        self.act("Report installed…", {"Note": "seen on the phone"}, witness="agent")
        self.expect_status("DONE")

    def cancel_by_keyboard(self):
        self.swap_form.get_by_label("+4520123401").focus()
        self.tab.keyboard.press("Space")
        self.swap_form.get_by_label("E-mail address").focus()
        self.tab.keyboard.press("Enter")
        self.expect_status("BUSY")
        self.newest.get_by_role("button", name="Cancel").focus()
        self.tab.keyboard.press("Enter")
        self.expect_status("ERROR")
        self.expect_fact("failure.code", "cancelled")

    def other_caller(self):
        callers = self.tab.get_by_label("Send requests as")
        callers.select_option(label="OWNER C-200")
        others = self.tab.locator("#swaps h3").filter(has_not_text="06-12345603")
        expect(others).to_have_count(0)
        expect(self.newest).to_contain_text("06-12345603")
        callers.select_option(label="ADMIN")
        expect(self.newest).to_contain_text("+4520123401")

    def swap(self, line, kind="eSIM", email=None):
        self.swap_form.get_by_label(line).check()
        self.swap_form.get_by_label(kind, exact=True).check()
        if email:
            self.swap_form.get_by_label("E-mail address").fill(email)
        self.swap_form.get_by_role("button", name="Swap").click()
        expect(self.swap_form.get_by_role("status")).to_have_text("200: the swap is INIT.")
        expect(self.newest.get_by_role("heading")).to_contain_text(line)

    def read_mail(self, address):
        """Opens the newest e-mail to this address, whose picture appears, and scans its QR code."""
        mail = self.tab.locator("#mails details").filter(has_text=address).first
        mail.locator("summary").click()
        picture = mail.frame_locator("iframe").locator("img")
        expect(picture).to_have_js_property("complete", True)
        check(picture.evaluate("picture => picture.naturalWidth") > 100, "the QR code appears")
        self.phone.get_by_label("Activation code").clear()
        mail.get_by_role("button", name="Scan with the phone").click()
        expect(self.phone.get_by_label("Activation code")).to_have_value(re.compile(r"^LPA:1\$"))

    def install(self, code):
        self.phone.get_by_label("Confirmation code").fill(code)
        self.phone.get_by_role("button").click()

    def act(self, button, fields, witness=None, response="200"):
        self.newest.get_by_role("button", name=button).click()
        dialog = self.tab.get_by_role("dialog")
        if witness:
            dialog.get_by_label("Witness").select_option(witness)
        for label, value in fields.items():
            dialog.get_by_label(label).fill(value)
        self.check_accessibility()
        dialog.get_by_role("button", name="Send").click()
        expect(self.newest.get_by_role("status")).to_have_text(re.compile(f"^{response}"))

    def expect_status(self, status):
        expect(self.newest.locator(".status")).to_have_text(status)

    def expect_fact(self, name, value):
        fact = self.newest.locator("dt").get_by_text(name, exact=True).locator("+ dd")
        expect(fact).to_have_text(value)

    def check_accessibility(self):
        for scheme in SCHEMES:
            self.tab.emulate_media(color_scheme=scheme)
            found = Axe().run(self.tab)
            check(found.violations_count == 0, found.generate_report())
        width = self.tab.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        check(width <= 0, f"the page is {width} pixels too wide")


def check(condition, fault):
    if not condition:
        sys.exit(f"the page is wrong: {fault}")


expect.set_options(timeout=TIMEOUT)
main(*sys.argv[1:])
