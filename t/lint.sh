#!/bin/sh
# lint.sh FILE...: what the compilers do not see, each finding as FILE:LINE: what; exits 1 when there is one
#
#   every FILE            lines to 120 columns, no trailing space, no path of one machine
#   C                     no tabs, functions to 70 lines
#   libcommon/ kernels/   .c to 800 lines, .h to 200 (kernels/, whose headers hold code: 400)
#   tools/                to 480 lines
#   man/* of the tree     mandoc -T lint -W warning, no path of one machine; every .Xr to a page of ours is there
set -u
root=$(cd "${0%/*}/.." && pwd) || exit 1
tmp=$(mktemp) || exit 1
trap 'rm -f "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

LC_ALL=C awk '
function finding(line, what) { print FILENAME ":" line ": " what }
function longer(what, max) {
    if (lines > max)
        print last ":" lines ": " what " of " lines " lines, want " max " at most"
}
function end_of_file() {
    if (last ~ /(^|\/)(libcommon|kernels)\/.*\.(c|cu)$/)
        longer("source", 800)
    else if (last ~ /\.(h|cuh)$/)
        longer("header", last ~ /(^|\/)kernels\// ? 400 : 200)
    else if (last ~ /(^|\/)tools\/[^\/]*$/)
        longer("tool", 480)
}

FNR == 1 {
    if (last != "")
        end_of_file()
    last = FILENAME
    c = FILENAME ~ /\.(c|h|cu|cuh)$/
    name = ""
    body = 0
}
{
    lines = FNR
    width = $0
    gsub(/[\200-\277]/, "", width)      # a character counts once
    if (length(width) > 120)
        finding(FNR, length(width) " columns, want 120 at most")
}
/[ \t\r]$/ { finding(FNR, "space at the end") }
/(^|[^A-Za-z0-9_.$})*-])\/(work|tmp|home|root|Users)\/[A-Za-z0-9_.$%]/ { finding(FNR, "path of one machine") }

c && /\t/ { finding(FNR, "tab") }
# A definition: its name at the start of a line, a brace alone on one, a brace alone on the last.
c && /^[A-Za-z_][A-Za-z0-9_]*\(/ { name = $0; sub(/\(.*/, "", name); first = FNR }
c && /^{/ { body = name != "" }
c && /^}/ {
    if (body && FNR - first + 1 > 70)
        finding(first, name "() of " FNR - first + 1 " lines, want 70 at most")
    name = ""
    body = 0
}
END { if (last != "") end_of_file() }
' "$@" /dev/null >"$tmp" || exit 1

cd "$root" || exit 1
if command -v mandoc >/dev/null 2>&1; then
    mandoc -T lint -W warning man/*.[157] 2>&1 | sed -E 's/^mandoc: //; s/^([^:]*:[0-9]+):[0-9]+: */\1: /' >>"$tmp"
else
    echo 'man:0: mandoc is not installed, pages were not checked' >>"$tmp"
fi
LC_ALL=C awk '
/\/(work|tmp|home|root|Users)\// { print FILENAME ":" FNR ": path of one machine" }
/^\.Xr llmc/ && (getline line < ("man/" $2 "." $3)) < 0 { print FILENAME ":" FNR ": no page " $2 "(" $3 ")" }
/[ \t]$/ { print FILENAME ":" FNR ": space at the end" }
length($0) > 120 { print FILENAME ":" FNR ": " length($0) " columns, want 120 at most" }
' man/*.[157] >>"$tmp" || exit 1

awk "!seen[\$0]++" "$tmp"
[ ! -s "$tmp" ]
