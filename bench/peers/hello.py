"""The floor: what gunicorn's gevent worker manages when the application does nothing at all."""


def app(_environ, start_response):
    body = b'{"success": true}'
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
