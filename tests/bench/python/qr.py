"""Draws a QR code many times with each library; prints how long one took, and the last image."""

import base64
import io
import json
import statistics
import sys
import time

import qrcode
import segno


def with_qrcode(code):
    drawn = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_M, box_size=8, border=4)
    drawn.add_data(code)
    drawn.make(fit=True)
    out = io.BytesIO()
    drawn.make_image().save(out)
    return out.getvalue()


def with_segno(code):
    out = io.BytesIO()
    segno.make(code, error="m", boost_error=False, micro=False).save(out, kind="png", scale=8, border=4)
    return out.getvalue()


code, images = sys.argv[1], int(sys.argv[2])
for library, draw in (("Python, `qrcode` with Pillow", with_qrcode), ("Python, `segno`", with_segno)):
    times = []
    for _ in range(images):
        began = time.perf_counter()
        png = draw(code)
        times.append((time.perf_counter() - began) * 1000)
    milliseconds = statistics.median(times[images // 10 :])
    print(json.dumps({"library": library, "milliseconds": milliseconds, "png": base64.b64encode(png).decode()}))
