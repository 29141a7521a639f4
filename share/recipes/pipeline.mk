# pipeline.mk - the stages one by one, each step's Hessians and weights kept where they are made
#
#     make -f pipeline.mk MODEL=SmolLM2-135M DATA=calib.jsonl SCHEME=W4A16 OUT=SmolLM2-135M-W4A16
#
# Stop it where you like; the same line goes on. WORK is the work directory, SHARD and CALIB more options of the two
# programs. One step after the other: `make -f pipeline.mk WORK=w step-3` does step 3 alone from frames in a file, once
# the steps before it are done.

WORK   ?= $(OUT).work
SCHEME ?= W4A16
.SHELLFLAGS = -ec
.DELETE_ON_ERROR:
.PHONY: all steps

all: $(OUT)/provenance.json

$(WORK)/plan.json:
	llmc-shard -C $(WORK) -m $(MODEL) -s $(SCHEME) -d $(DATA) $(SHARD)

steps: $(WORK)/plan.json
	for s in $$(llmc-calib -C $(WORK) -n | cut -f 1); do \
	    $(MAKE) -f $(firstword $(MAKEFILE_LIST)) WORK=$(WORK) step-$$s; \
	done
	llmc-gptq -C $(WORK) </dev/null

step-%:
	llmc-calib -C $(WORK) -s $* --state-seconds 0 $(CALIB) >$(WORK)/frames
	llmc-hessian -C $(WORK) --keep <$(WORK)/frames >$(WORK)/hessians
	llmc-gptq -C $(WORK) -q <$(WORK)/hessians 2>$(WORK)/later || test $$? -eq 75 # later steps have no Hessians yet
	rm -f $(WORK)/frames $(WORK)/hessians $(WORK)/later

$(OUT)/provenance.json: steps
	llmc-pack -C $(WORK) -o $(OUT)
