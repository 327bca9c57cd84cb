# Handles one order: its payload comes on standard input, exit status 0 means done. What is said on stderr becomes the
# failed message's error. Of 100 orders one fails twice, which a retry cures, and one fails always, which parks it in
# orders.dead.
read -r order

case "$order on attempt $CORREIO_ATTEMPT" in
*'50} on attempt '[12])
    echo "$order: the till is closed for a moment" >&2
    exit 1
    ;;
*'00} on attempt '*)
    echo "$order: no such book" >&2
    exit 1
    ;;
esac
