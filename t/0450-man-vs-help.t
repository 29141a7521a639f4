#!/bin/sh
# manual pages and --help say the same, and the examples work
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"

man=$root/man
stages='shard calib hessian gptq pack eval report'
pages='llmc.1 llmc-shard.1 llmc-calib.1 llmc-hessian.1 llmc-gptq.1 llmc-pack.1 llmc-eval.1 llmc-report.1
    llmc-workdir.5 llmc-recipe.5 llmc-stream.5 llmc.7'

section() {     # PAGE TITLE
    sed -n "/^\.Sh $2\$/,/^\.Sh /p" "$man/$1" | sed '1d; /^\.Sh /d'
}

# The line that a page must have for each option.
items() {
    awk -F '\t' '{
        printf ".It Fl "
        if ($2 != "-")
            printf "%s , Fl ", $2
        printf "-%s", $3
        print $4 != "-" ? " Ar " $4 : ""
    }'
}

# -X and --long of a synopsis, a word each.
synopsis() {
    section "$1" SYNOPSIS | sed 's/|/\n/g' | awk '{
        for (i = 1; i < NF; i++)
            if ($i == "Fl" || $i == ".Fl") {
                n = $(i + 1) ~ /^-/ ? 1 : length($(i + 1))
                for (j = 1; j <= n; j++)
                    print "-" (n == 1 ? $(i + 1) : substr($(i + 1), j, 1))
            }
    }' | sort
}

# The literal lines of a section, without markup.
literal() {
    section "$1" "$2" | sed -n '/^\.Bd -literal/,/^\.Ed/p' | sed '/^\.[BE]d/d; s/\\e/\\/g; s/\\-/-/g'
}

ok 'there is a page for each program and format, and none else' '
    printf "%s\n" $pages | sort >want
    (cd "$man" && ls) | sort >got
    diff -u want got
'
for p in $pages; do
    case $p in
    *.5) want='NAME DESCRIPTION EXAMPLES' ;;
    *.7) want='NAME DESCRIPTION' ;;
    *) want='NAME SYNOPSIS DESCRIPTION OPTIONS FILES' ;;
    esac
    ok "$p has its sections" '
        for s in $want "SEE ALSO"; do
            grep -qx ".Sh $s" "$man/$p" || { echo "no section $s"; exit 1; }
        done
        case $p in
        *.5) ;;
        *) grep -qx ".Sh EXIT STATUS" "$man/$p"; section "$p" "EXIT STATUS" | grep -q "^\.It 0" ;;
        esac
    '
    ok 'its references lead somewhere, each in SEE ALSO once and in order' '
        sed -n "s/^\.Xr \(llmc[a-z-]*\) \([157]\).*/\1.\2/p" "$man/$p" | sort -u | while read -r x; do
            [ -f "$man/$x" ] || { echo "no page $x"; exit 1; }
        done
        section "$p" "SEE ALSO" | awk "/^\.Xr/ { print \$3, \$2 }" >got
        sort -u got | cmp - got
    '
    if command -v mandoc >/dev/null; then
        ok 'and mandoc finds nothing' 'mandoc -T lint -W warning "$man/$p"'
    else
        skip 'and mandoc finds nothing' 'mandoc is not installed'
    fi
done

for s in $stages; do
    ok "llmc-$s.1 has the options of --help-options and no other" '
        llmc-$s --help-options | items | sort >want
        grep "^\.It Fl" "$man/llmc-$s.1" | sort >got
        diff -u want got
    '
    ok 'with their defaults' '
        llmc-$s --help-options | awk -F "\t" "\$5 != \"-\" { print \$3, \$5 }" | while read -r name default; do
            case $default in
            *\\*) default=${default%%\\*} ;;
            esac
            sed -n "/^\.It Fl.*-$name\( \|\$\)/,/^\.\(It\|El\)/p" "$man/llmc-$s.1" | tail -n +2 >text
            grep -Fqe "$default" text && grep -q default text || { echo "--$name: no default $default"; exit 1; }
        done
    '
    ok 'and the synopsis has them, too' '
        llmc-$s --help-options | awk -F "\t" "\$1 != \"action\" { print \"-\" (\$2 != \"-\" ? \$2 : \"-\" \$3) }" |
            sort >want
        synopsis "llmc-$s.1" | uniq >got
        diff -u want got
    '
    ok 'the one-line description is the same' '
        llmc-$s --help | sed -n 2p >want
        sed -n "s/^\.Nd //p" "$man/llmc-$s.1" >got
        diff -u want got
    '
done

# --- llmc is a script: its help is text ---

ok 'llmc.1 has every option that llmc --help names' '
    llmc --help | grep -oE "(^|[^a-z-])--?[a-z][a-z-]*|(^|[^a-zA-Z])-[a-zA-Z]([^a-zA-Z]|\$)" |
        grep -oE "\-+[a-zA-Z-]*" | sort -u | sed "s/^-/Fl /" >want
    [ "$(wc -l <want)" -gt 20 ]
    while read -r flag; do
        grep -q "^\.It.* $flag\( \|\$\)" "$man/llmc.1" || { echo "no $flag"; exit 1; }
    done <want
'
ok 'and llmc takes every option of the page' '
    grep "^\.It Fl" "$man/llmc.1" | grep -v "version\|help" | while read -r line; do
        value=$(echo "$line" | sed -n "s/.*comm Ar .*/files/p; s/.* Ar .*/1/p" | head -n 1)
        for flag in $(echo "$line" | sed "s/^\.It //; s/ Ar .*//; s/,//g; s/Fl /-/g"); do
            llmc run m -s W4A16 -o o $flag $value --show >show || { echo "$flag is refused"; exit 1; }
        done
    done
'
ok 'its synopsis has the options of its usage' '
    llmc --help | sed "/^\$/q" | grep -oE "(^|[^A-Za-z-])--?[a-zA-Z-]+" | grep -oE "\-+[a-zA-Z-]+" | sort -u >want
    synopsis llmc.1 | sort -u >got
    diff -u want got
'
ok 'its stages are the programs that there are' '
    for s in $stages; do
        grep -q "^\.Xr llmc-$s 1" "$man/llmc.1" && grep -q "^\.Xr llmc-$s 1" "$man/llmc.7" || { echo "no $s"; exit 1; }
    done
'

# --- tables ---

ids 64 8 >calib.jsonl
ids 64 8 "$demo/eval.jsonl" >eval.jsonl
ln -s "$demo" model
literal llmc-recipe.5 DESCRIPTION >recipe.yaml

ok 'every preset that llmc-shard.1 lists is one' '
    sed -n "/^\.Ss Schemes/,/^\.Sh/p" "$man/llmc-shard.1" | sed "/^\./d; /^W is/d" | tr -c "A-Z0-9_\n" "\n" |
        grep -E "[A-Z0-9]{3}" >presets
    [ "$(wc -l <presets)" -ge 28 ]
    while read -r s; do
        llmc-shard -m model -s "$s" --plan >plan || exit 1
    done <presets
'
ok 'llmc-workdir.5 has the columns of the tables' '
    llmc-shard -C tables -m model -s W4A16 -d calib.jsonl
    for t in steps tasks blocks; do
        head -n 1 tables/$t.tsv | tr "\t" "\n" >want
        sed -n "/^\.Ss $t.tsv/,/^\.El/p" "$man/llmc-workdir.5" | sed -n "s/^\.It \(.*\) Ta.*/\1/p" |
            sed "s/, /\n/g" >got
        diff -u want got
    done
'
ok 'and the keys of plan.json' '
    grep -oE "^  \"[a-z_]+\"" tables/plan.json | tr -d " \"" >keys
    [ "$(wc -l <keys)" -ge 10 ]
    sed -n "/^\.Ss plan.json/,/^\.Ss steps/p" "$man/llmc-workdir.5" >text
    while read -r k; do
        grep -qw "$k" text || { echo "no $k"; exit 1; }
    done <keys
'

# --- examples, in the order in which one builds on the other ---

for p in llmc-shard.1 llmc-calib.1 llmc-hessian.1 llmc-gptq.1 llmc-workdir.5 llmc-stream.5 llmc-pack.1 llmc-eval.1 \
    llmc-recipe.5 llmc-report.1 llmc.1; do
    ok "the examples of $p work" '
        literal "$p" EXAMPLES >script
        [ -s script ] && cat script
        sh -e script >out
        [ -s out ] || case $p in llmc-calib.1 | llmc-hessian.1) ;; *) exit 1 ;; esac
    '
done
ok 'and so does the pipeline of llmc.7' '
    rm -rf w model-W4A16
    literal llmc.7 DESCRIPTION >script
    [ "$(wc -l <script)" -eq 5 ]
    sh -e script >out
    [ -s model-W4A16/model.safetensors ]
'

done_testing
