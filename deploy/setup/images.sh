ensure_images() { log "images: not yet"; mkdir -p "$GODWIT_SETUP_OUT"; }
