#!/bin/sh
# Write what differs between installations where nginx.conf includes it, then become nginx. Reads OUTSIDE_URL, UPLOAD_LIMIT
# and HOLD_SECONDS; TLS is on where the secret tls_key is there. OLD_PATHS, if any, is the index that has a pypiserver's paths.
set -eu
made=/tmp/proxy
mkdir -p "$made"

outside=${OUTSIDE_URL%/}
authority=${outside#*://}
prefix=${authority#"${authority%%/*}"}

{
    printf 'client_max_body_size %s;\n' "$UPLOAD_LIMIT"
    # The address that clients use may have a path; devpi takes it off again, and so must we before we compare.
    [ -z "$prefix" ] || printf 'rewrite ^%s(/.*)$ $1;\n' "$prefix"
    if [ -e /run/secrets/tls_key ]; then
        cat <<-END
		listen 3141 ssl;
		ssl_certificate /run/secrets/tls_certificate;
		ssl_certificate_key /run/secrets/tls_key;
		error_page 497 =308 https://${authority%%/*}\$request_uri;
		END
    else
        echo 'listen 3141;'
    fi
    if [ -n "${OLD_PATHS:-}" ]; then
        # The links of a page are relative to its own address. A path alone, since a Host is nothing to repeat; found, not
        # moved for good, since clients remember that.
        cat <<-END
		location ~ ^/simple(?<old>/[A-Za-z0-9._-]+)?/?\$ {
		    absolute_redirect off;
		    return 302 $prefix$OLD_PATHS/+simple\$old/;
		}
		location ^~ /packages/ {
		    include devpi.conf;
		    absolute_redirect off;
		    proxy_redirect ~^[a-z]+://[^/]+(/.*)\$ \$1;
		}
		END
    fi
} >"$made/server.conf"
# What another user or a killed nginx left in the volume is nobody's any more.
spool=/var/spool/pypi_proxy/$(id -u)
rm -rf "$spool"
mkdir "$spool"
{
    printf 'map $pid $hold_seconds { default %s; }\n' "$HOLD_SECONDS"
    # What devpi is asked for: the same, but an upload to a pypiserver goes to its root, and its files are in /packages/.
    echo 'map "$request_method $request_uri" $asked { default $request_uri;'
    if [ -n "${OLD_PATHS:-}" ]; then
        printf '"~^POST %s/(?:[?]|$)" %s%s/;\n' "$prefix" "$prefix" "$OLD_PATHS"
        printf '"~^(?:GET|HEAD) %s/packages/(?:[^?]*/)?(?<file>[^/?]*)" ' "$prefix"
        printf '"%s%s/+packages/$file";\n' "$prefix" "$OLD_PATHS"
    fi
    echo '}'
    printf 'client_body_temp_path %s/body;\nproxy_temp_path %s/answer;\n' "$spool" "$spool"
} >"$made/http.conf"
printf 'server unix:%s;\n' "${DEVPI_SOCKET:-/run/pypi/devpi.sock}" >"$made/upstream.conf"

set -- nginx -e stderr -c /opt/pypi_proxy/nginx.conf -g 'daemon off;' "$@"
# With PORT_SOCKET the port is another container's, which hands it over; without it, as with plain `docker run`, our own.
[ -z "${PORT_SOCKET:-}" ] || set -- perl /opt/pypi_proxy/inherit.pl "$PORT_SOCKET" "$@"
exec "$@"
