# Farebox in a container: books in the volume /var/lib/farebox, config at /etc/farebox/config.yaml (your own: mount the
# folder that it lies in; a file mounted by itself would stay the old one when an editor replaces it).
#   docker build -t farebox .
#   docker run --stop-timeout 20 -p 127.0.0.1:4000:4000 -v farebox:/var/lib/farebox \
#     -v "$PWD/etc:/etc/farebox:ro" -e FAREBOX_ADMIN_KEY -e OPENAI_API_KEY farebox

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/farebox
WORKDIR /src
# Dependencies first: they change less often than the code. Each is checked against its hash.
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN /opt/farebox/bin/pip install --require-hashes -r requirements/runtime.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE config.yaml ./
COPY pricing pricing
COPY ledger ledger
COPY proxy proxy
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/farebox/bin/pip install --no-deps --no-index /wheels/*.whl

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/farebox --shell /usr/sbin/nologin farebox \
 && install -d -o farebox -g farebox -m 0700 /var/lib/farebox \
 && install -d /etc/farebox
COPY --from=build /opt/farebox /opt/farebox
COPY config.yaml /etc/farebox/config.yaml
ENV PATH=/opt/farebox/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FAREBOX_CONFIG=/etc/farebox/config.yaml \
    FAREBOX_DATABASE_URL=sqlite:////var/lib/farebox/farebox.db
USER farebox
WORKDIR /var/lib/farebox
VOLUME /var/lib/farebox
EXPOSE 4000
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4000/healthz', timeout=2)"]
# Written as a list, so that the server is process 1 and gets the signals itself.
CMD ["farebox", "serve", "--host", "0.0.0.0", "--port", "4000", "--log-json"]
