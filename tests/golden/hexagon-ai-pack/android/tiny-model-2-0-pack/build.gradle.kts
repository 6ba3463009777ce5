plugins {
    id("com.android.ai-pack")
}

aiPack {
    packName.set("tiny_model_2_0_pack")
    dynamicDelivery {
        // Part of the installation, so that the loader finds the model in the app's assets.
        deliveryType.set("install-time")
    }
}
