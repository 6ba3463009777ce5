plugins {
    id("com.android.ai-pack")
}

aiPack {
    packName = "tiny_model_2_0_pack"
    dynamicDelivery {
        // Part of the installation: the loader finds the model among the app's assets.
        deliveryType = "install-time"
    }
}
