# Whether nginx answers. The base image may have no HTTP client; bash can open a connection by itself.
exec 3<>/dev/tcp/127.0.0.1/3142
printf 'GET / HTTP/1.0\r\n\r\n' >&3
read -r -t 3 line <&3
[[ $line == *" 200 "* ]]
